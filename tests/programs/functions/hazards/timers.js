// Code that is compiled while it runs, timers and garbage, in a runtime whose own functions are probed.
const readline = require("readline").createInterface({ input: process.stdin });
console.log("ready");
readline.once("line", async () => {
  let sum = 0;
  const step = (n) => (n % 7 === 0 ? { value: n }.value * 2 : n + 1);
  for (let n = 0; n < 3000000; n++) sum = (sum * 31 + step(n)) % 1000003;
  for (let n = 0; n < 200; n++) {
    await new Promise((done) => setTimeout(done, 0));
    sum = (sum + JSON.stringify(Array.from({ length: 100 }, (_, i) => i * n)).length) % 1000003;
  }
  let caught = 0;
  for (let n = 0; n < 2000; n++) {
    try { if (n % 2) throw new Error("e" + n); } catch (error) { caught += error.message.length; }
  }
  console.log(sum, caught);
  readline.close();
});
