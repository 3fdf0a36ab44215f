// A server whose first process accepts connections and passes them on to its two workers: `cluster.js PORT`. Answers
// with the process id of the worker; by SIGHUP other workers take the places of those that are there.
const cluster = require('cluster');
const http = require('http');

if (cluster.isPrimary) {
  for (let number = 0; number < 2; number++) cluster.fork();
  process.on('SIGHUP', () => {
    for (const worker of Object.values(cluster.workers)) {
      cluster.fork().once('listening', () => worker.disconnect());
    }
  });
} else {
  http.createServer((request, response) => response.end(String(process.pid)))
    .listen(Number(process.argv[2]), '127.0.0.1');
}
