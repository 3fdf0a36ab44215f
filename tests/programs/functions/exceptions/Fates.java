// Requests one after another, each served by a thread: exceptions that are caught, that others than the
// program catch, that go on, and at the end some that nobody catches. Lines that begin "fate" say how many
// there are with a message, and what becomes of them; the argument is what is said of those of which only
// the interpreter says that they are caught.
import java.io.FileInputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;

public class Fates {
    // Its constructor does more behind the message.
    static class Rich extends Exception {
        final int[] more;

        Rich(String message) {
            super(message);
            more = new int[100];
        }
    }

    static class Door implements AutoCloseable {
        @Override
        public void close() {}
    }

    static void work(String what) {
        throw new IllegalStateException(what);
    }

    static <T extends Throwable> Object declares(T what) throws T, java.io.IOException {
        throw what;
    }

    static void caught(String what) {
        try {
            work(what);
        } catch (IllegalStateException error) {
            kept = error;
        }
    }

    static int passesFinally(String what) {
        int passed = 0;
        try {
            work(what);
        } finally {
            passed++;
        }
        return passed;
    }

    static synchronized void passesMonitor(String what) {
        synchronized (Fates.class) {
            work(what);
        }
    }

    static void again(String what) {
        try {
            work(what);
        } catch (IllegalStateException error) {
            throw error;
        }
    }

    static void closes(String what) {
        try (Door door = new Door()) {
            work(what);
        }
    }

    static void nested() {
        try {
            work("outer");
        } catch (IllegalStateException error) {
            caught("inner");
            kept = error;
        }
    }

    static Throwable kept;

    static void request() throws Exception {
        for (int n = 0; n < 3; n++) caught("caught");
        try {
            passesFinally("through finally");
        } catch (RuntimeException error) {
            kept = error;
        }
        try {
            passesMonitor("through monitors");
        } catch (RuntimeException error) {
            kept = error;
        }
        try {
            again("again");
        } catch (IllegalArgumentException | IllegalStateException error) {
            kept = error;
        }
        nested();
        // Nobody throws it.
        kept = new Rich("never thrown");
        Exception early = new Rich("größer 漢字 \uD83D\uDE00");
        try {
            declares(early);
        } catch (Rich error) {
            kept = error;
        }
        // What another one catches may yet come up.
        task(() -> declares(new Rich("of a task")));
        task(() -> {
            closes("of a task, closed");
            return null;
        });
        task(() -> {
            again("of a task, again");
            return null;
        });
        try {
            new FileInputStream("/no/such/file");
        } catch (java.io.FileNotFoundException error) {
            kept = error;
        }
        Object text = "text";
        try {
            kept = new Rich(((Runnable) text).toString());
        } catch (ClassCastException error) {
            kept = error;
        }
        try {
            declares(new Rich("longer than what is read: " + "0123456789".repeat(40)));
        } catch (Rich error) {
            kept = error;
        }
        // Where it lies then, another one may have been.
        Exception moved = new Rich("moved");
        System.gc();
        try {
            declares(moved);
        } catch (Rich error) {
            kept = error;
        }
        try {
            declares(new Rich(null));
        } catch (Rich error) {
            kept = error;
        }
    }

    static void task(Callable<Object> what) {
        new FutureTask<>(what).run();
    }

    static void serve(ServerSocket listener, boolean ends) throws Exception {
        try (Socket connection = listener.accept()) {
            connection.getInputStream().read(new byte[4096]);
            if (ends) return;
            request();
            connection.getOutputStream()
                .write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".getBytes());
        }
    }

    static void said(String fate, int count, String... messages) {
        for (String message : messages) System.out.println("fate " + count + "\t" + message + "\t" + fate);
    }

    public static void main(String[] arguments) throws Exception {
        String caught = arguments[0];
        // What loading classes raises is over by then.
        request();
        try (ServerSocket listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            System.out.println("ready\n" + listener.getLocalPort());
            String long_one = "longer than what is read: " + "0123456789".repeat(40);
            said(caught, 3, "caught");
            said(caught, 1, "through finally", "through monitors", "again", "outer", "inner");
            said(caught, 1, "größer 漢字 \uD83D\uDE00", "/no/such/file (No such file or directory)");
            said(caught, 1, long_one.substring(0, 256));
            String cast = "class java.lang.String cannot be cast to class java.lang.Runnable (java.lang.String and "
                + "java.lang.Runnable are in module java.base of loader 'bootstrap')";
            said(caught, 1, cast);
            said("-", 1, "of a task", "of a task, closed", "of a task, again");
            said(caught, 1, "");
            said("-", 2, "");
            said("not caught", 1, "of a thread", "the end");
            System.out.println("fates");
            serve(listener, false);
            Thread thread = new Thread(() -> {
                try (Socket connection = listener.accept()) {
                    connection.getInputStream().read(new byte[4096]);
                    work("of a thread");
                } catch (java.io.IOException error) {
                    System.exit(9);
                }
            });
            thread.start();
            thread.join();
            Socket connection = listener.accept();
            connection.getInputStream().read(new byte[4096]);
            declares(new Rich("the end"));
        }
    }
}
