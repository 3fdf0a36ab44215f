# Exceptions of several kinds while a request is answered. Lines that begin "raised" say how often, and
# what is to be told.
require "socket"

module App
  class NotFound < StandardError; end
end

def work(kind)
  case kind
  when 0 then raise "plain text"
  when 1 then raise App::NotFound, "no such thing"
  when 2 then Integer("seven")
  when 3 then 1 / 0
  when 4 then nil.nothing
  when 5
    numbers = [1, 2].each
    loop { numbers.next }
  end
end

def passes_on(kind)
  work(kind)
ensure
  [1, 2].sum
end

listener = TCPServer.new("127.0.0.1", 0)
puts "ready", listener.addr[1]
$stdout.flush
connection = listener.accept
connection.readpartial(4096)
caught = 0
3.times do
  6.times do |kind|
    passes_on(kind)
  rescue StandardError
    caught += 1
  end
end
connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
connection.close
puts "caught #{caught}"
puts "raised 3\tRuntimeError\t"
puts "raised 3\tApp::NotFound\t"
puts "raised 3\tArgumentError\t"
puts "raised 3\tZeroDivisionError\t"
puts "raised 3\tNoMethodError\t"
exit 4
