<?php
// The scenes' endpoints behind FastCGI: every path of the site comes here.
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/hello') {
    if (($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === '"remora"') {
        http_response_code(304);
    } else {
        header('ETag: "remora"');
        header('Content-Length: 6');
        echo "hello\n";
    }
} elseif ($path === '/big') {
    header('Content-Length: ' . (1 << 20));
    echo str_repeat("\0", 1 << 20);
} elseif ($path === '/echo') {
    $body = file_get_contents('php://input');
    header('Content-Length: ' . strlen($body));
    echo $body;
} elseif ($path === '/stream') {
    for ($number = 0; $number < 3; $number++) {
        echo "part $number\n";
        flush();
    }
} elseif ($path === '/flood') {
    for ($number = 0; $number < 3; $number++) {
        echo str_repeat("\0", 100000);
        flush();
    }
} elseif ($path === '/moved') {
    header('Location: /hello', true, 302);
} elseif ($path === '/none') {
    http_response_code(204);
} else {
    http_response_code(404);
    echo "not here\n";
}
