import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/** What {@code whose} asks: {@code Threads.java PORT BACK}. Virtual threads where this JDK has them. */
public class Threads {
    static int back;
    static ExecutorService threads;
    static final AtomicBoolean POLLS = new AtomicBoolean();
    static final ScheduledExecutorService LATER = Executors.newScheduledThreadPool(2);
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] args) throws Exception {
        back = Integer.parseInt(args[1]);
        threads = threads();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.setExecutor(threads);
        server.createContext("/", Threads::handle);
        server.start();
    }

    static ExecutorService threads() {
        try {
            return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (ReflectiveOperationException none) {
            return Executors.newCachedThreadPool();
        }
    }

    static Void ask(String path) throws IOException {
        try (Socket socket = new Socket("127.0.0.1", back)) {
            String head = "GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            socket.getOutputStream().write(head.getBytes());
            socket.getInputStream().readAllBytes();
        }
        return null;
    }

    /** Asks again and again, each time in whatever thread there is. */
    static void poll() {
        LATER.scheduleAtFixedRate(() -> threads.submit(() -> ask("/poll/0")), 0, 5, TimeUnit.MILLISECONDS);
    }

    static void answer(HttpExchange exchange) {
        try {
            exchange.sendResponseHeaders(200, 2);
            exchange.getResponseBody().write("ok".getBytes());
            exchange.close();
        } catch (IOException failed) {
            failed.printStackTrace();
        }
    }

    static void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        String kind = path.split("/")[1];
        try {
            if (kind.equals("each")) {
                for (int number = 0; number < 2; number++) {
                    Thread.sleep(2);
                    ask(path);
                }
            } else if (kind.equals("together")) {
                List<Future<Void>> calls = new ArrayList<>();
                for (int number = 0; number < 3; number++) {
                    calls.add(threads.submit(() -> ask(path)));
                }
                for (Future<Void> call : calls) {
                    call.get();
                }
            } else if (kind.equals("client")) {
                HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + back + path))
                    .version(HttpClient.Version.HTTP_1_1).build();
                CLIENT.sendAsync(request, HttpResponse.BodyHandlers.ofString()).join();
            } else if (kind.equals("slow")) {
                if (POLLS.compareAndSet(false, true)) {
                    poll();
                }
                Thread.sleep(30);
            } else if (kind.equals("handed")) {
                // The thread of the request is free meanwhile.
                LATER.schedule(() -> answer(exchange), 100, TimeUnit.MILLISECONDS);
                return;
            }
        } catch (Exception failed) {
            throw new IOException(failed);
        }
        answer(exchange);
        if (kind.equals("after")) {
            ask(path);
        }
    }
}
