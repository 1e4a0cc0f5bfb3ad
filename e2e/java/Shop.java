import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** A server that one asks oneself, without a word of tracing in it: spans come from the agent. */
public class Shop {
  public static void main(String[] arguments) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
    server.createContext("/item", exchange -> {
      byte[] body = "an item".getBytes();
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
    URI item = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/item");
    HttpResponse<String> answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(item).build(), HttpResponse.BodyHandlers.ofString());
    System.out.println(answer.statusCode());
    server.stop(0);
  }
}
