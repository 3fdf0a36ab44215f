// A Node server that answers everything with 200 bytes. Its argument is the port.
const body = Buffer.alloc(200, 'x');
const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': 200 };
const server = require('http').createServer((_, response) => {
  response.writeHead(200, headers);
  response.end(body);
});
server.listen(Number(process.argv[2]), '127.0.0.1');
