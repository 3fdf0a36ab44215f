# The scenes' endpoints as a Rack application, for Puma.
BIG = "\0" * (1 << 20)

run(lambda do |env|
  text = { 'content-type' => 'text/plain' }
  case env['PATH_INFO']
  when '/hello'
    if env['HTTP_IF_NONE_MATCH'] == '"remora"'
      [304, {}, []]
    else
      [200, text.merge('etag' => '"remora"'), ["hello\n"]]
    end
  when '/big' then [200, text, [BIG]]
  when '/echo' then [200, text, [env['rack.input'].read]]
  when '/stream' then [200, text, Enumerator.new { |out| 3.times { |n| out << "part #{n}\n" } }]
  when '/flood' then [200, text, Enumerator.new { |out| 3.times { out << "\0" * 100_000 } }]
  when '/moved' then [302, { 'location' => '/hello' }, []]
  when '/none' then [204, {}, []]
  else [404, text, ["not here\n"]]
  end
end)
