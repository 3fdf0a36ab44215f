<?php
// Two requests: exceptions that are caught, of which nothing is said, and one that nobody catches. Lines
// that begin "fate" say how many there are with a message, and what becomes of them.

function work(string $what): void {
    throw new RuntimeException($what);
}

$listener = stream_socket_server("tcp://127.0.0.1:0");
echo "ready\n", explode(":", stream_socket_get_name($listener, false))[1], "\n";
flush();
echo "fate 3\tcaught\t-\n";
echo "fate 1\tthe end\tnot caught\n";
flush();
for ($round = 0; $round < 2; $round++) {
    $connection = stream_socket_accept($listener, 100);
    fread($connection, 4096);
    if ($round == 0) {
        for ($n = 0; $n < 3; $n++) {
            try {
                work("caught");
            } catch (Exception $error) {
                unset($error);
            }
        }
    } else {
        work("the end");
    }
    fwrite($connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    fclose($connection);
}
