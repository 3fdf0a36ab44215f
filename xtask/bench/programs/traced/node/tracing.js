// OpenTelemetry's SDK, loaded before a Node server: a span for every request, exported in batches to
// the endpoint in the environment.
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http');
const { NodeSDK } = require('@opentelemetry/sdk-node');

new NodeSDK({ instrumentations: [new HttpInstrumentation()] }).start();
