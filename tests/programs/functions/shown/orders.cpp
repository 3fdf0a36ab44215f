// A small HTTP server in C++: one thread, one connection after another. `orders PORT [STOCK_PORT]`.
//
// /order?id=N prices an order, and asks the server at STOCK_PORT, if there is one, whether it is in stock;
// ids above 99 are thrown out, which the server answers with 500.
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

namespace shop {

enum class Currency { Euro, Dollar };

struct Order {
    int id;
    std::string customer;
};

__attribute__((noinline)) long price(const Order& order, Currency currency) {
    if (order.id > 99)
        throw std::out_of_range("no such order: " + std::to_string(order.id));
    return order.id * 100 + static_cast<long>(currency);
}

int stock_port = 0;

sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

// How many bytes the stock's server answers.
__attribute__((noinline)) long in_stock(int id) {
    int server = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = local(stock_port);
    if (connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address))
        return -1;
    std::string request = "GET /stock/" + std::to_string(id) +
                          " HTTP/1.1\r\nHost: stock\r\nConnection: close\r\n\r\n";
    long sum = write(server, request.data(), request.size()) < 0 ? -1 : 0;
    char answer[4096];
    for (ssize_t bytes; (bytes = read(server, answer, sizeof answer)) > 0;)
        sum += bytes;
    close(server);
    return sum;
}

__attribute__((noinline)) std::string handle(const std::string& path) {
    Order order{std::atoi(path.c_str() + path.find("id=") + 3), "ada"};
    if (stock_port)
        in_stock(order.id);
    return std::to_string(price(order, Currency::Dollar)) + "\n";
}

}  // namespace shop

int main(int argc, char** argv) {
    if (argc > 2)
        shop::stock_port = std::atoi(argv[2]);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address = shop::local(std::atoi(argv[1]));
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) || listen(listener, 16))
        return 1;
    for (;;) {
        int client = accept(listener, nullptr, nullptr);
        char request[4096];
        for (ssize_t bytes; (bytes = read(client, request, sizeof request - 1)) > 0;) {
            std::string text(request, static_cast<size_t>(bytes));
            std::string path = text.substr(4, text.find(' ', 4) - 4), body, status = "200 OK";
            try {
                body = shop::handle(path);
            } catch (const std::exception& error) {
                status = "500 Internal Server Error";
                body = std::string(error.what()) + "\n";
            }
            std::string answer = "HTTP/1.1 " + status + "\r\nContent-Length: " +
                                 std::to_string(body.size()) + "\r\n\r\n" + body;
            if (write(client, answer.data(), answer.size()) < 0)
                break;
        }
        close(client);
    }
}
