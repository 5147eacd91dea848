// Random bytes in random cuts from a backend. The client gets whole answers that anybody can read, and nothing of them
// ever answers the next request.

import HTTP1
import LinuxIO
import Primitives

/// Five bytes choose cuts and method; the rest is what the backend sends when it has the first request.
func checkBackend(_ input: [UInt8], _ gateway: GatewayInProcess) throws {
    guard input.count > 5 else { return }
    let seed = stableHash(Array(input.prefix(4)).span)
    let method = ["GET", "HEAD", "OPTIONS", "QUERY"][Int(input[4] % 4)]
    let stream = Array(input.dropFirst(5))
    let client = try gateway.connect()
    var connections: [(end: RawEnd, requests: Int)] = []
    var clean = 0

    func step() throws -> Bool {
        var moved = client.receive()
        while let connection = try gateway.acceptBackend() {
            connections.append((connection, 0))
            moved = true
        }
        for index in connections.indices {
            moved = connections[index].end.receive() || moved
            let count = try requestCount(connections[index].end.received)
            while connections[index].requests < count {
                connections[index].requests += 1
                moved = true
                // The first request is answered below.
                if index == 0, connections[index].requests == 1 { continue }
                clean += 1
                let body = method == "HEAD" ? "" : "clean"
                let text = "HTTP/1.1 200 OK\r\nX-Clean: \(clean)\r\nContent-Length: 5\r\n\r\n\(body)"
                try connections[index].end.send(Array(text.utf8)[...])
            }
        }
        return moved
    }

    let request = Array("\(method) /a HTTP/1.1\r\nHost: h\r\n\r\n".utf8)
    try client.send(request[...])
    try gateway.settle(until: { !connections.isEmpty && connections[0].requests == 1 }, "no request comes", step)
    let first = connections[0].end
    let places = cuts(of: stream.count, seed: seed, count: Int(seed % 12))
    for (start, end) in zip(places, places.dropFirst()) {
        try first.send(stream[start..<end])
        try gateway.settle(step)
    }
    // Where the answer is whole, this one is passed on; its connection may be the same.
    try client.send(request[...])
    try gateway.settle(step)
    if connections[0].requests == 1 { first.endSending() }
    client.endSending()
    try gateway.settle(until: { client.ended }, "no end comes behind \(shown(stream))", step)

    let wasReset = client.wasReset
    let received = client.received
    client.close()
    for connection in connections { connection.end.close() }
    try gateway.expectEmpty()
    try checkAnswers(received, method: method, wasReset: wasReset, stream)
}

private func requestCount(_ bytes: [UInt8]) throws -> Int {
    var count = 0
    var rest = bytes[...]
    while !rest.isEmpty, case .message(_, let length) = try readPlainly(rest, .request) {
        rest = rest.dropFirst(length)
        count += 1
    }
    return count
}

private func checkAnswers(_ bytes: [UInt8], method: String, wasReset: Bool, _ stream: [UInt8]) throws {
    let kind = PlainKind.response { status in !(method == "HEAD" || status < 200 || status == 204 || status == 304) }
    var answers: [PlainMessage] = []
    var rest = bytes[...]
    while !rest.isEmpty {
        guard case .message(let message, let length) = try readPlainly(rest, kind, ended: !wasReset) else {
            try require(wasReset, "half an answer and no reset: \(shown(stream)) becomes \(shown(bytes))")
            break
        }
        rest = rest.dropFirst(length)
        if message.start[1].first == UInt8(ascii: "1") {
            try require(message.start[1] != Array("101".utf8), "a switch that nobody asked for: \(shown(stream))")
            continue
        }
        answers.append(message)
    }
    let became = "\(shown(stream)) becomes \(shown(bytes))"
    try require(answers.count <= 2, "more answers than requests: \(became)")
    try require(answers.count == 2 || wasReset || !answers.isEmpty, "no answer: \(became)")
    if answers.count == 2 {
        // What has passed through names the gateway; what has not is its own.
        let second = answers[1]
        try require(second.value("x-clean") != nil || second.value("via") == nil, "a stray answer: \(became)")
    }
}
