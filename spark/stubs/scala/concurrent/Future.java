package scala.concurrent;

public interface Future<T> {
  static <T> Future<T> successful(T value) {
    return null;
  }
}
