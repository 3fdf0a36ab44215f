"""A client on Python's http.client, or on requests: `http_client.py client|requests URL COUNT`.

Prints the sum of statuses and of bytes.
"""
import http.client
import sys
import urllib.parse

KIND, URL, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
statuses = size = 0
if KIND == "requests":
    import requests

    with requests.Session() as session:
        for number in range(COUNT):
            if number % 3 == 0:
                answer = session.post(f"{URL}/{number}", data=b"p" * number)
            else:
                answer = session.get(f"{URL}/{number}")
            statuses += answer.status_code
            size += len(answer.content)
else:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(URL).netloc)
    for number in range(COUNT):
        if number % 3 == 0:
            connection.request("POST", f"/{number}", body=b"p" * number)
        else:
            connection.request("GET", f"/{number}")
        answer = connection.getresponse()
        statuses += answer.status
        size += len(answer.read())
print(statuses, size)
