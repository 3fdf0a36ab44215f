import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/** The scenes' endpoints on the JDK's own server: {@code Server.java PORT}. */
public class Server {
    static final byte[] BIG = new byte[1 << 20];

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(args[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", Server::handle);
        server.start();
    }

    static void handle(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        String match = exchange.getRequestHeaders().getFirst("If-None-Match");
        switch (exchange.getRequestURI().getPath()) {
            case "/hello":
                if ("\"remora\"".equals(match)) {
                    answer(exchange, 304, new byte[0]);
                } else {
                    exchange.getResponseHeaders().set("ETag", "\"remora\"");
                    answer(exchange, 200, "hello\n".getBytes(StandardCharsets.UTF_8));
                }
                break;
            case "/big":
                answer(exchange, 200, BIG);
                break;
            case "/echo":
                answer(exchange, 200, body);
                break;
            case "/moved":
                exchange.getResponseHeaders().set("Location", "/hello");
                answer(exchange, 302, new byte[0]);
                break;
            case "/none":
                answer(exchange, 204, new byte[0]);
                break;
            case "/stream":
            case "/flood":
                boolean flood = exchange.getRequestURI().getPath().equals("/flood");
                // A length of 0 means chunks here.
                exchange.sendResponseHeaders(200, 0);
                for (int number = 0; number < 3; number++) {
                    String part = "part " + number + "\n";
                    byte[] bytes = flood ? new byte[100_000] : part.getBytes(StandardCharsets.UTF_8);
                    exchange.getResponseBody().write(bytes);
                    exchange.getResponseBody().flush();
                }
                exchange.close();
                break;
            default:
                answer(exchange, 404, "not here\n".getBytes(StandardCharsets.UTF_8));
        }
    }

    static void answer(HttpExchange exchange, int status, byte[] body) throws IOException {
        boolean head = exchange.getRequestMethod().equals("HEAD");
        if (head) {
            exchange.getResponseHeaders().set("Content-Length", String.valueOf(body.length));
        }
        exchange.sendResponseHeaders(status, head || body.length == 0 ? -1 : body.length);
        if (!head && body.length > 0) {
            exchange.getResponseBody().write(body);
        }
        exchange.close();
    }
}
