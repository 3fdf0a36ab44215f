# What `whose` asks, on Puma's threads. BACK is the port of what it asks.
require 'net/http'

# What it asks.
module Back
  LOCK = Mutex.new

  def self.ask(path)
    Net::HTTP.start('127.0.0.1', Integer(ENV['BACK'])) { |http| http.get(path, 'Connection' => 'close') }
  end

  def self.poll
    loop do
      ask('/poll/0')
      sleep 0.005
    end
  end

  def self.begin_to_poll
    LOCK.synchronize { @polls ||= Thread.new { poll } }
  end
end

# An answer, and what is done when it has been given.
class After
  def initialize(path)
    @path = path
  end

  def each
    yield 'ok'
  end

  def close
    Back.ask(@path)
  end
end

run(lambda do |env|
  path = env['PATH_INFO']
  body = ['ok']
  case path.split('/')[1]
  when 'each'
    2.times do
      sleep 0.002
      Back.ask(path)
    end
  when 'together' then Array.new(3) { Thread.new { Back.ask(path) } }.each(&:join)
  when 'slow'
    Back.begin_to_poll
    sleep 0.03
  when 'after' then body = After.new(path)
  end
  [200, { 'Content-Length' => '2' }, body]
end)
