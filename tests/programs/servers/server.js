// The scenes' endpoints on Node's http: `server.js PORT`.
const http = require('http');

const BIG = Buffer.alloc(1 << 20);

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const path = request.url.split('?')[0];
    const answer = (status, fields, body) => {
      if (status !== 204 && status !== 304) fields['Content-Length'] = Buffer.byteLength(body);
      response.writeHead(status, fields);
      response.end(body);
    };
    if (path === '/hello' && request.headers['if-none-match'] === '"remora"') answer(304, {}, '');
    else if (path === '/hello') answer(200, { ETag: '"remora"' }, 'hello\n');
    else if (path === '/big') answer(200, {}, BIG);
    else if (path === '/echo' && request.method === 'POST') answer(200, {}, Buffer.concat(parts));
    else if (path === '/moved') answer(302, { Location: '/hello' }, '');
    else if (path === '/none') answer(204, {}, '');
    else if (path === '/stream') {
      response.writeHead(200);
      for (let number = 0; number < 3; number++) response.write(`part ${number}\n`);
      response.end();
    } else if (path === '/flood') {
      response.writeHead(200);
      for (let number = 0; number < 3; number++) response.write(BIG.subarray(0, 100_000));
      response.end();
    } else answer(404, {}, 'not here\n');
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
