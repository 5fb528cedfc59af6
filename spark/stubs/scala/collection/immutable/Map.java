package scala.collection.immutable;

public interface Map<K, V> {
  scala.collection.Iterator<V> valuesIterator();
}
