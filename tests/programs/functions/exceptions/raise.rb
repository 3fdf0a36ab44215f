# Exceptions of several kinds while a request is answered. Lines that begin "raised" say how often, and
# what is to be told.
require "socket"

module App
  class NotFound < StandardError; end

  # It has variables of its own, before and after its message.
  class Rich < StandardError
    def initialize(name)
      @name = "not the message of #{name}"
      super("a message that is too long to lie within its object: #{name}")
      @more = "nor this"
    end
  end

  # It has no message.
  class Mute < StandardError
    def initialize(name)
      @name = name
    end
  end
end

def singular
  error = RuntimeError.new("of its own class")
  def error.more = 1
  error
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
  when 6 then raise App::Rich, "seven"
  when 7 then raise App::Mute, "not a message"
  when 8 then raise "größer"
  when 9 then raise "gr\u00f6\u00dfer".encode("UTF-16LE")
  when 10 then raise App::NotFound
  when 11 then raise singular
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
  12.times do |kind|
    passes_on(kind)
  rescue StandardError
    caught += 1
  end
end
connection.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
connection.close
puts "caught #{caught}"
puts "raised 3\tRuntimeError\tplain text"
puts "raised 3\tApp::NotFound\tno such thing"
puts "raised 3\tArgumentError\tinvalid value for Integer(): \"seven\""
puts "raised 3\tZeroDivisionError\tdivided by 0"
puts "raised 3\tNoMethodError\t"
puts "raised 3\tApp::Rich\ta message that is too long to lie within its object: seven"
puts "raised 3\tApp::Mute\t"
puts "raised 3\tRuntimeError\tgrößer"
# Of another encoding, and with methods of its own.
puts "raised 6\tRuntimeError\t"
puts "raised 3\tApp::NotFound\t"
exit 4
