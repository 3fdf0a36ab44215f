// Exceptions of several kinds while a request is answered. Lines that begin "raised" say how often, and
// what is to be told.
const net = require("node:net");

class NotFound extends Error {}

function work(kind) {
  switch (kind) {
    case 0: throw new Error("plain text");
    case 1: throw new NotFound("no such thing");
    case 2: throw new RangeError("too far");
    case 3: throw new Error();
    case 4: throw "no error";
    case 5: throw 7;
  }
}

function round() {
  let caught = 0;
  for (let kind = 0; kind < 7; kind++) {
    try {
      work(kind);
    } catch {
      caught++;
    }
  }
  return caught;
}

let caught = 0;
const server = net.createServer((connection) => {
  connection.once("data", () => {
    for (let n = 0; n < 3; n++) caught += round();
    connection.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    server.close();
  });
});
server.on("close", () => {
  console.log(`caught ${caught}`);
  console.log("raised 3\tError\tplain text");
  console.log("raised 3\t\tno such thing");
  console.log("raised 3\tRangeError\ttoo far");
  console.log("raised 3\tError\t");
  console.log("raised 6\t\t");
  process.exitCode = 9;
});
server.listen(0, "127.0.0.1", () => console.log(`ready\n${server.address().port}`));
