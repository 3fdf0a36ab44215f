// The net/http server of ../../go with OpenTelemetry's SDK inside: a span for every request, exported
// in batches to the endpoint in the environment. Its argument is the port.
package main

import (
	"bytes"
	"context"
	"log"
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithBatcher(exporter)))
	body := bytes.Repeat([]byte("x"), 200)
	handler := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", "200")
		w.Write(body)
	}
	http.Handle("/", otelhttp.NewHandler(http.HandlerFunc(handler), "/"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
