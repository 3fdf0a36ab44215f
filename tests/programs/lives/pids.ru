# Answers with the id of the process that does.
run ->(_env) { [200, {}, [Process.pid.to_s]] }
