// A client on Node's http, on one kept-alive connection: `client.js URL COUNT`. Prints the sum of
// statuses and of bytes.
const http = require('http');

const [url, count] = [process.argv[2], Number(process.argv[3])];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let statuses = 0;
let size = 0;

function ask(number) {
  if (number === count) {
    console.log(statuses, size);
    agent.destroy();
    return;
  }
  const method = number % 3 === 0 ? 'POST' : 'GET';
  const request = http.request(`${url}/${number}`, { method, agent }, (answer) => {
    statuses += answer.statusCode;
    answer.on('data', (part) => { size += part.length; });
    answer.on('end', () => ask(number + 1));
  });
  request.end(method === 'POST' ? 'p'.repeat(number) : undefined);
}

ask(0);
