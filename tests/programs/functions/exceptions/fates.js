// Two requests: exceptions that are caught, of which nothing is said, one that only the process's own
// listener gets, and one that nobody catches. Lines that begin "fate" say how many there are with a
// message, and what becomes of them.
const net = require("node:net");

function work(what) {
  throw new Error(what);
}

let answered = 0;
const server = net.createServer((connection) => {
  connection.once("data", () => {
    if (answered++ === 0) {
      process.once("uncaughtException", () => {
        connection.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      });
      for (let n = 0; n < 3; n++) {
        try {
          work("caught");
        } catch {}
      }
      work("heard of");
    }
    work("the end");
  });
});
server.listen(0, "127.0.0.1", () => {
  console.log(`ready\n${server.address().port}`);
  console.log("fate 3\tcaught\t-");
  console.log("fate 1\theard of\tnot caught");
  console.log("fate 1\tthe end\tnot caught");
});
