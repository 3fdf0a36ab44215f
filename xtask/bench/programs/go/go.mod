module remora.bench/server

go 1.19
