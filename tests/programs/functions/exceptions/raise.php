<?php
// Exceptions of several kinds while a request is answered. Lines that begin "raised" say how often, and
// what is to be told.

namespace App;

class NotFound extends \RuntimeException {}
class Deep extends NotFound {
    public string $more = "more";
}

function work(int $kind): void {
    switch ($kind) {
        case 0: throw new \Exception("plain text");
        case 1: throw new NotFound("no such thing", 4);
        case 2: throw new Deep("größer");
        case 3: intdiv(1, 0);
        case 4: strlen([]);
        case 5: null_function();
        case 6: throw new \Exception();
        case 7:
            try {
                throw new \LogicException("inside");
            } finally {
                strtoupper("cleaned");
            }
    }
}

$listener = stream_socket_server("tcp://127.0.0.1:0");
$name = stream_socket_get_name($listener, false);
echo "ready\n", explode(":", $name)[1], "\n";
flush();
$connection = stream_socket_accept($listener, 100);
fread($connection, 4096);
$caught = 0;
for ($round = 0; $round < 3; $round++) {
    for ($kind = 0; $kind < 8; $kind++) {
        try {
            work($kind);
        } catch (\Throwable $error) {
            $caught++;
        }
    }
}
fwrite($connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
fclose($connection);
echo "caught $caught\n";
echo "raised 3\tException\tplain text\n";
echo "raised 3\tApp\\NotFound\tno such thing\n";
echo "raised 3\tApp\\Deep\tgrößer\n";
echo "raised 3\tDivisionByZeroError\tDivision by zero\n";
echo "raised 3\tTypeError\tstrlen(): Argument #1 (\$string) must be of type string, array given\n";
echo "raised 3\tError\tCall to undefined function App\\null_function()\n";
echo "raised 3\tException\t\n";
echo "raised 3\tLogicException\tinside\n";
exit(6);
