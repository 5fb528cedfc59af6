package scala.collection;

public interface Seq<A> {
  Iterator<A> iterator();
}
