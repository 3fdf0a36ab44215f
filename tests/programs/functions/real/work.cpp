// A little of everything that the C++ library does, the same each time; ends by an exception.
#include <algorithm>
#include <future>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

struct Guard {
    std::string name;
    ~Guard() { std::cout << "leaves " << name << '\n'; }
};

int main() {
    std::cout << "ready" << std::endl;
    std::string line;
    std::getline(std::cin, line);
    std::vector<std::future<int>> results;
    for (int n = 0; n < 6; ++n) results.push_back(std::async(std::launch::async, fibonacci, 10 + n));
    for (auto &result : results) std::cout << result.get() << ' ';
    std::map<std::string, int> words;
    for (int n = 0; n < 500; ++n) ++words["k" + std::to_string(n * 7919 % 101)];
    std::vector<std::string> names;
    for (auto &[name, count] : words) names.push_back(name);
    std::stable_sort(names.begin(), names.end(), [](auto &a, auto &b) { return a.size() < b.size(); });
    std::ostringstream text;
    text.precision(12);
    text << names.front() << names.back() << std::hex << 48879 << ' ' << 1.0 / 3;
    std::cout << text.str() << std::regex_replace(text.str(), std::regex("e+"), "x") << std::endl;
    for (int n = 0; n < 3; ++n) {
        try {
            Guard guard{"guard" + std::to_string(n)};
            if (n == 0) throw std::runtime_error("raised");
            if (n == 1) std::vector<int>().at(1);
            std::stoi("x");
        } catch (const std::exception &error) {
            std::cout << error.what() << '\n';
        }
    }
    std::promise<int> promise;
    std::thread([&] { promise.set_exception(std::make_exception_ptr(3)); }).join();
    try {
        promise.get_future().get();
    } catch (int n) {
        std::cout << n << std::endl;
    }
    throw std::logic_error("the end");
}
