// A server that answers everything with 200 bytes. Its argument is the port.
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.concurrent.Executors;

public class Server {
    public static void main(String[] args) throws Exception {
        byte[] body = new byte[200];
        Arrays.fill(body, (byte) 'x');
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        InetSocketAddress address = new InetSocketAddress(loopback, Integer.parseInt(args[0]));
        HttpServer server = HttpServer.create(address, 1024);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
