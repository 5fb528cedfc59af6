package dev.metier.spark;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.TreeSet;

/** What Spark wants of executors, as JSON at {@code GET /}: {@code {"total": 3, "dismissed": ["2"]}}. */
final class Wishes implements AutoCloseable {
  private final TreeSet<String> dismissed = new TreeSet<>();
  private int total;
  private HttpServer server;

  Wishes(int total) {
    this.total = total;
  }

  synchronized int total() {
    return total;
  }

  synchronized void want(int count) {
    total = count;
  }

  synchronized void dismiss(Collection<String> ids) {
    dismissed.addAll(ids);
  }

  synchronized String json() {
    StringBuilder out = new StringBuilder("{\"total\":").append(total).append(",\"dismissed\":[");
    String comma = "";
    for (String id : dismissed) {
      out.append(comma).append('"').append(id).append('"');
      comma = ",";
    }
    return out.append("]}").toString();
  }

  void serve(String address, int port) throws IOException {
    server = HttpServer.create(new InetSocketAddress(address, port), 8);
    server.createContext("/", this::answer);
    server.start();
  }

  private void answer(HttpExchange exchange) throws IOException {
    byte[] body = json().getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "application/json");
    exchange.sendResponseHeaders(200, body.length);
    exchange.getResponseBody().write(body);
    exchange.close();
  }

  @Override
  public void close() {
    if (server != null) {
      server.stop(0);
      server = null;
    }
  }
}
