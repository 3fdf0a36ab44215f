import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** A client on java.net.http: {@code Client.java URL COUNT}. Prints the sum of statuses and bytes. */
public class Client {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        long statuses = 0;
        long size = 0;
        for (int number = 0; number < Integer.parseInt(args[1]); number++) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(args[0] + "/" + number));
            if (number % 3 == 0) {
                request.POST(HttpRequest.BodyPublishers.ofString("p".repeat(number)));
            }
            HttpResponse<byte[]> answer =
                client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            statuses += answer.statusCode();
            size += answer.body().length;
        }
        System.out.println(statuses + " " + size);
    }
}
