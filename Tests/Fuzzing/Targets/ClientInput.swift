// Random bytes in random cuts on a client connection. What reaches the backend are exactly the requests that were
// accepted: as many, in their order, with their methods, targets and bodies; and the cuts change nothing.

import HTTP1
import LinuxIO
import Primitives

@testable import Gateway

/// A request as the bytes say without any cuts.
private struct Asked {
    var method: [UInt8]
    var target: [UInt8]
    var body: [UInt8] = []
    var isWhole = false
}

private struct Observed: Equatable {
    struct Answer: Equatable {
        var status: [UInt8]
        /// Which request of the backend's it answers; `nil` for an answer of the gateway's own.
        var request: Int?
    }

    var requests: [PlainMessage] = []
    var partial: [PlainMessage] = []
    var answers: [Answer] = []
}

/// Five bytes choose cuts and answers; the rest is what the client sends, and a line end behind it: a head is looked at
/// again when a line has ended, so what is wrong in the midst of the last one would be noticed in some cuts only.
func checkConnection(_ input: [UInt8], _ gateway: GatewayInProcess) throws {
    guard input.count > 5 else { return }
    let seed = stableHash(Array(input.prefix(4)).span)
    let style = Int(input[4])
    let stream = Array(input.dropFirst(5)) + [0x0d, 0x0a]
    let asked = requests(in: stream, gateway.context.headLimits)

    let whole = try observe(stream, cut: [0, stream.count], style, asked, gateway)
    try compare(whole, asked, stream)
    let places = cuts(of: stream.count, seed: seed, count: 1 + Int(seed % 12))
    let pieces = try observe(stream, cut: places, style, asked, gateway)
    try compare(pieces, asked, stream)
    try require(
        whole.requests == pieces.requests && whole.answers == pieces.answers,
        "cut otherwise: \(shown(stream)) at \(places): \(whole), \(pieces)")
}

/// The requests in the bytes, read at once, up to what no request can follow.
private func requests(in stream: [UInt8], _ limits: HeadLimits) -> [Asked] {
    var found: [Asked] = []
    var offset = 0
    while offset < stream.count {
        let rest = Array(stream[offset...])
        var head = RequestHead()
        guard case .complete(let length) = head.parse(rest.span, limits: limits) else { break }
        var target = Array(rest[head.pathAndQuery])
        if head.form != .asterisk, target.first != UInt8(ascii: "/") { target.insert(UInt8(ascii: "/"), at: 0) }
        var asked = Asked(method: Array(rest[head.methodBytes]), target: target)
        var decoder = BodyDecoder(head.framing, limits: limits)
        var position = length
        body: while true {
            switch decoder.next(rest.span, at: position) {
            case .data(let range):
                asked.body += rest[range]
                position = range.upperBound
            case .end(let consumed):
                asked.isWhole = true
                position = consumed
                break body
            case .needMore, .malformed: break body
            }
        }
        found.append(asked)
        guard asked.isWhole else { break }
        offset += position
    }
    return found
}

private func observe(
    _ stream: [UInt8], cut places: [Int], _ style: Int, _ asked: [Asked], _ gateway: GatewayInProcess
) throws -> Observed {
    let backend = PlainBackend(gateway, style)
    let client = try gateway.connect()
    let step = {
        let moved = try backend.step()
        return client.receive() || moved
    }
    for (start, end) in zip(places, places.dropFirst()) {
        try client.send(stream[start..<end])
        try gateway.settle(step)
    }
    client.endSending()
    try gateway.settle(until: { client.ended }, "no end comes behind \(shown(stream))", step)
    try gateway.settle(step)
    var observed = Observed()
    observed.requests = backend.requests
    observed.partial = try backend.partial()
    observed.answers = try answers(client.received, asked)
    backend.end()
    client.close()
    try gateway.expectEmpty()
    return observed
}

private func answers(_ bytes: [UInt8], _ asked: [Asked]) throws -> [Observed.Answer] {
    var answers: [Observed.Answer] = []
    var rest = bytes[...]
    while !rest.isEmpty {
        let isHead = answers.count < asked.count && asked[answers.count].method == Array("HEAD".utf8)
        let kind = PlainKind.response { status in !(isHead || status < 200 || status == 204 || status == 304) }
        guard case .message(let message, let length) = try readPlainly(rest, kind, ended: true) else {
            throw Finding("half an answer: \(shown(rest))")
        }
        rest = rest.dropFirst(length)
        if message.start[1].first == UInt8(ascii: "1") { continue }
        let request = message.value("x-request").flatMap { Int(String(decoding: $0, as: UTF8.self)) }
        answers.append(Observed.Answer(status: message.start[1], request: request))
    }
    return answers
}

private func compare(_ observed: Observed, _ asked: [Asked], _ stream: [UInt8]) throws {
    let sent = "\(shown(stream)): \(observed)"
    // One more where what follows the last request is none.
    try require(observed.answers.count <= asked.count + 1, "more answers than requests: \(sent)")
    var passed = 0
    for (index, answer) in observed.answers.enumerated() {
        guard let request = answer.request else { continue }
        try require(request == passed && passed < observed.requests.count, "another's answer: \(sent)")
        try require(index < asked.count && asked[index].isWhole, "an answer to no request: \(sent)")
        let received = observed.requests[passed]
        passed += 1
        try require(
            received.start[0] == asked[index].method && received.start[1] == asked[index].target
                && received.body == asked[index].body, "another request than was accepted: \(sent)")
    }
    try require(passed == observed.requests.count, "a request that nobody sent: \(sent)")
    for partial in observed.partial {
        let candidates = [observed.answers.count - 1, observed.answers.count].filter { asked.indices.contains($0) }
        try require(
            candidates.contains {
                partial.start[0] == asked[$0].method && partial.start[1] == asked[$0].target
                    && asked[$0].body.starts(with: partial.body)
            }, "a part of a request that nobody sent: \(sent)")
    }
}

/// A backend that answers whole requests only, in one of several ways.
private final class PlainBackend {
    private let gateway: GatewayInProcess
    private let style: Int
    private var connections: [RawEnd] = []
    private var read: [Int] = []
    private(set) var requests: [PlainMessage] = []

    init(_ gateway: GatewayInProcess, _ style: Int) {
        self.gateway = gateway
        self.style = style
    }

    func step() throws -> Bool {
        var moved = false
        while let connection = try gateway.acceptBackend() {
            connections.append(connection)
            read.append(0)
            moved = true
        }
        for (index, connection) in connections.enumerated() {
            moved = connection.receive() || moved
            while read[index] < connection.received.count,
                case .message(let message, let length) = try readPlainly(
                    connection.received[read[index]...], .request)
            {
                read[index] += length
                try answer(message, on: connection)
                requests.append(message)
                moved = true
            }
        }
        return moved
    }

    /// What arrived of requests that were not sent to their end.
    func partial() throws -> [PlainMessage] {
        try connections.indices.compactMap { index in
            let rest = connections[index].received[read[index]...]
            guard case .partial(let message) = try readPlainly(rest, .request) else { return nil }
            return message
        }
    }

    private func answer(_ request: PlainMessage, on connection: RawEnd) throws {
        let tag = "X-Request: \(requests.count)\r\n"
        let isHead = request.start[0] == Array("HEAD".utf8)
        var text: String
        var closes = false
        switch (style + requests.count) % 6 {
        case 0: text = "HTTP/1.1 200 OK\r\n\(tag)Content-Length: 2\r\n\r\n" + (isHead ? "" : "ok")
        case 1: text = "HTTP/1.1 204 No Content\r\n\(tag)\r\n"
        case 2:
            text = "HTTP/1.1 200 OK\r\n\(tag)Transfer-Encoding: chunked\r\n\r\n"
            if !isHead { text += "2;a=b\r\nok\r\n0\r\nX-T: 1\r\n\r\n" }
        case 3:
            text = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            text += "HTTP/1.1 404 Not Found\r\n\(tag)Content-Length: 0\r\n\r\n"
        case 4:
            text = "HTTP/1.1 200 OK\r\n\(tag)Connection: close\r\nContent-Length: 2\r\n\r\n" + (isHead ? "" : "ok")
            closes = true
        default:
            text = "HTTP/1.0 200 OK\r\n\(tag)\r\n" + (isHead ? "" : "ok")
            closes = true
        }
        try connection.send(Array(text.utf8)[...])
        if closes { connection.endSending() }
    }

    func end() {
        for connection in connections { connection.close() }
    }
}
