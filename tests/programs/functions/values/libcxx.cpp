// Strings as the other standard library lays them out; says what its functions are given.
#include <cstdio>
#include <string>
#include <string_view>

#define KEEP __attribute__((noinline))

extern "C" KEEP int first(const std::string &text)
{
	std::printf("first|remora.arg.text|%s\n", text.c_str());
	return text[0];
}
extern "C" KEEP int second(const std::string *text)
{
	std::printf("second|remora.arg.text|&\"%s\"\n", text->c_str());
	return text->at(0);
}
extern "C" KEEP int third(std::string text)
{
	std::printf("third|remora.arg.text|%s\n", text.c_str());
	return text[0];
}
extern "C" KEEP int fourth(std::string_view text)
{
	std::printf("fourth|remora.arg.text|%.*s\n", (int)text.size(), text.data());
	return text[0];
}

int main(int argc, char **)
{
	for (int n = argc; n < argc + 4; n += 3) {
		std::string text = n == 1 ? "short" : std::string(60, 'l');
		std::printf("first|remora.return|%d\n", first(text));
		std::printf("second|remora.return|%d\n", second(&text));
		std::printf("third|remora.return|%d\n", third(text));
		std::printf("fourth|remora.return|%d\n", fourth(text));
	}
}
