-- Closed loop of wrk that sends the contents of the file $BENCH_REQUEST unchanged and prints one line of JSON.
local file = assert(io.open(os.getenv("BENCH_REQUEST"), "rb"))
local bytes = file:read("*a")
file:close()

request = function() return bytes end

done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\nJSON {"requests": %d, "seconds": %.6f, "failures": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, e.status + e.connect + e.read + e.write + e.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
