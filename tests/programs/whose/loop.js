// What `whose` asks, on Node's http: `loop.js PORT BACK`.
const http = require('http');
const [port, back] = process.argv.slice(2).map(Number);

const ask = (path) => new Promise((done, failed) => {
  const call = http.get({ port: back, host: '127.0.0.1', path, agent: false }, (answer) => {
    answer.resume();
    answer.on('end', done);
  });
  call.on('error', failed);
});
const after = (ms) => new Promise((done) => setTimeout(done, ms));

let polls = false;
async function poll() {
  for (let number = 0; ; number++) {
    await ask(`/poll/${number}`);
    await after(5);
  }
}

http.createServer(async (request, response) => {
  const path = request.url;
  const kind = path.split('/')[1];
  if (kind === 'each') {
    for (let number = 0; number < 2; number++) {
      await after(2);
      await ask(path);
    }
  } else if (kind === 'together') {
    await Promise.all([ask(path), ask(path), ask(path)]);
  } else if (kind === 'slow') {
    if (!polls) poll();
    polls = true;
    await after(30);
  }
  response.writeHead(200, { 'Content-Length': 2 });
  response.end('ok');
  if (kind === 'after') await ask(path);
}).listen(port, '127.0.0.1');
