// Exceptions of several kinds while a request is answered. Lines that begin "raised" say how often, and
// what is to be told.
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

public class Raise {
    static class NotFound extends RuntimeException {
        NotFound(String message) {
            super(message);
        }
    }

    // It has no stack trace, and is not seen.
    static class Quiet extends RuntimeException {
        Quiet() {
            super("quiet", null, false, false);
        }
    }

    static int work(int kind) {
        switch (kind) {
            case 0: throw new IllegalStateException("plain text");
            case 1: throw new NotFound("no such thing");
            case 2: return 1 / (kind - 2);
            case 3: return Integer.parseInt("seven");
            case 4: throw new Quiet();
            default: return kind;
        }
    }

    static int round() {
        int caught = 0;
        for (int kind = 0; kind < 6; kind++) {
            try {
                work(kind);
            } catch (RuntimeException error) {
                caught++;
            }
        }
        return caught;
    }

    public static void main(String[] args) throws Exception {
        // What loading classes raises is over by then.
        int caught = round();
        try (ServerSocket listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            System.out.println("ready\n" + listener.getLocalPort());
            try (Socket connection = listener.accept()) {
                connection.getInputStream().read(new byte[4096]);
                for (int n = 0; n < 3; n++) caught += round();
                connection.getOutputStream().write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".getBytes());
            }
        }
        System.out.println("caught " + caught);
        System.out.println("raised 3\tjava.lang.IllegalStateException\tplain text");
        System.out.println("raised 3\tRaise$NotFound\tno such thing");
        System.out.println("raised 3\tjava.lang.ArithmeticException\t/ by zero");
        System.out.println("raised 3\tjava.lang.NumberFormatException\tFor input string: \"seven\"");
        System.exit(8);
    }
}
