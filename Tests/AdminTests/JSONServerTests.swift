import EventLoop
import LinuxIO
import Primitives
import Testing

@testable import Admin

/// Sends what it is given, and keeps what it gets.
private final class Client: StreamHandler {
    private let text: String
    private let reads: Bool
    private var input = ByteBuffer()
    private var stream: Stream?
    private(set) var ended = false
    private(set) var isConnected = false

    init(_ text: String, reads: Bool = true) {
        self.text = text
        self.reads = reads
    }

    var received: String { String(decoding: input.array, as: UTF8.self) }
    func send(_ more: String) {
        guard let stream else { return }
        let bytes = Array(more.utf8)
        stream.send(bytes.span)
    }

    func streamConnected(_ stream: Stream) {
        self.stream = stream
        isConnected = true
        send(text)
    }

    func streamReadable(_ stream: Stream) {
        while reads, stream.mayHaveBytes {
            switch stream.receive(into: &input, room: 1 << 16) {
            case .bytes: break
            case .wouldBlock: return
            case .endOfFile, .failed: return streamDeadlinePassed(stream)
            }
        }
    }

    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) { streamDeadlinePassed(stream) }
    func streamDeadlinePassed(_ stream: Stream) {
        ended = true
        stream.close()
    }
}

/// A server and its clients on one loop.
private final class Stage {
    let loop: Loop
    let server: JSONServer
    private let address: SocketAddress
    private var isLate = false
    private var timer: LoopTimer!

    init(
        connectionsMax: Int? = nil, shed: @escaping () -> Void = {},
        answer: @escaping (SmallRequest) -> SmallAnswer,
        admit: @escaping (SmallRequest) -> Admission = { _ in .withoutBody }
    ) throws {
        loop = try Loop(waker: try Waker())
        let socket = try ListeningSocket(SocketAddress(ip: .v4Loopback, port: 0), reusePort: false)
        address = socket.address
        server = try JSONServer(
            socket, loop: loop, connectionsMax: connectionsMax, shed: shed, answer: answer, admit: admit)
        timer = LoopTimer(loop) { [weak self] in self?.isLate = true }
    }

    func client(_ text: String, reads: Bool = true) throws -> Client {
        let client = Client(text, reads: reads)
        _ = try loop.connect(to: .tcp(address), handler: client)
        return client
    }

    /// Runs until it is so; `false` where it is not after long.
    func run(until isSo: () -> Bool) -> Bool {
        isLate = false
        timer.schedule(after: .seconds(20))
        defer { timer.cancel() }
        while !isSo(), !isLate { loop.turn() }
        return isSo()
    }
}

@Suite("The server of the admin listener")
struct JSONServerTests {
    private static func post(_ path: String, _ length: Int, _ body: String = "", fields: String = "") -> String {
        "POST \(path) HTTP/1.1\r\nHost: h\r\nContent-Length: \(length)\r\n\(fields)\r\n\(body)"
    }

    @Test("who is refused learns it when the head is there, and nobody waits for the body or keeps it")
    func refused() throws {
        let stage = try Stage(answer: { _ in SmallAnswer(body: [0x21]) }, admit: { _ in .refused(.problem(401, "No")) })
        // Some send nothing more, some wait for leave, some send on.
        let big = String(repeating: "x", count: 400_000)
        for (fields, body) in [("", ""), ("Expect: 100-continue\r\n", ""), ("", big)] {
            let client = try stage.client(Self.post("/", 500_000, body, fields: fields))
            #expect(stage.run { client.ended && stage.server.open == 0 })
            #expect(client.received.hasPrefix("HTTP/1.1 401 "))
            #expect(client.received.contains("Connection: close\r\n"))
            #expect(client.received.hasSuffix("{\"title\":\"No\",\"status\":401}\n"))
        }
        // Where there is no body the connection lives on.
        let client = try stage.client("GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(stage.run { client.received.split(separator: "HTTP/1.1 401").count == 2 })
        #expect(!client.ended)
    }

    @Test("bodies are kept where they are wanted, and not more than some at a time")
    func bodies() throws {
        var seen: [String] = []
        let stage = try Stage(
            answer: { request in
                seen.append("\(request.path) \(String(decoding: request.body, as: UTF8.self))")
                return SmallAnswer(body: [0x21])
            }, admit: { $0.path == "/push" ? .withBody : .withoutBody })
        let dropped = try stage.client(Self.post("/other", 3, "abc"))
        #expect(stage.run { dropped.received.hasSuffix("!") })
        let places = try (0..<JSONServer.bodiesMax).map { _ in
            try stage.client(Self.post("/push", 3, fields: "Expect: 100-continue\r\n"))
        }
        #expect(stage.run { places.allSatisfy { $0.received.hasPrefix("HTTP/1.1 100 ") } })
        let refused = try stage.client(Self.post("/push", 3, "abc"))
        #expect(stage.run { refused.ended })
        #expect(refused.received.hasPrefix("HTTP/1.1 503 "))
        places[0].send("abc")
        #expect(stage.run { places[0].received.hasSuffix("!") })
        let next = try stage.client(Self.post("/push", 3, "def"))
        #expect(stage.run { next.received.hasSuffix("!") })
        #expect(seen == ["/other ", "/push abc", "/push def"])
    }

    @Test("many requests at once are answered one by one, and others on the loop come in between")
    func pipeline() throws {
        var turns: [UInt64: Int] = [:]
        var loop: Loop?
        let body = [UInt8](repeating: 0x61, count: 100)
        let stage = try Stage(answer: { request in
            turns[loop?.turns ?? 0, default: 0] += 1
            return SmallAnswer(body: body + Array(request.path.utf8))
        })
        loop = stage.loop
        let count = 200
        let requests = (1...count).map { "GET /\($0) HTTP/1.1\r\nHost: h\r\n\r\n" }.joined()
        let client = try stage.client(requests)
        #expect(stage.run { client.received.hasSuffix("/\(count)") })
        let paths = client.received.split(separator: "HTTP/1.1 200").compactMap { $0.split(separator: "a/").last }
        #expect(paths.map(String.init) == (1...count).map { "\($0)" })
        #expect(turns.values.reduce(0, +) == count)
        #expect(turns.values.allSatisfy { $0 <= 2 })
    }

    private static let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"

    @Test(
        "where all places are taken, who has been quiet for the longest time makes room",
        arguments: ["", "GET / HTTP/1.1\r\nHo", get, post("/", 100, "begun")])
    func sheds(first: String) throws {
        var shed = 0
        let stage = try Stage(
            connectionsMax: 8, shed: { shed += 1 },
            answer: { request in
                var answer = SmallAnswer(body: [0x21])
                if request.path == "/stream" { answer.follow = { _ = $0.write("begun") } }
                return answer
            })
        let stream = try stage.client("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(stage.run { stream.received.hasSuffix("begun") })
        var quiet: [Client] = []
        for _ in 0..<40 {
            let client = try stage.client(first)
            quiet.append(client)
            #expect(stage.run { client.isConnected && (first != Self.get || client.received.hasSuffix("!")) })
            let check = try stage.client("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            #expect(stage.run { check.ended })
            #expect(check.received.hasPrefix("HTTP/1.1 200 "))
        }
        #expect(stage.run { quiet.count { $0.ended } == shed })
        #expect(stage.server.open <= 8)
        #expect(shed >= 30)
        // In the order in which they came, and never an answer that goes on.
        #expect(quiet.prefix(shed).allSatisfy { $0.ended })
        #expect(!stream.ended)
    }

    @Test(
        "a head, a body and silence have their time, however slowly bytes come",
        arguments: ["", "GET / HTTP/1.1\r\n", post("/", 1_000_000), get])
    func patience(first: String) throws {
        let stage = try Stage(answer: { _ in SmallAnswer(body: [0x21]) })
        stage.server.patience = SmallPatience(
            head: .milliseconds(200), body: .milliseconds(300), idle: .milliseconds(400))
        let client = try stage.client(first)
        let drips = !first.isEmpty && first != Self.get
        let timer = LoopTimer(stage.loop) { if drips { client.send("x") } }
        #expect(
            stage.run {
                timer.schedule(after: .milliseconds(20))
                return client.ended
            })
        #expect(stage.server.open == 0)
        #expect(client.received.isEmpty == (first != Self.get))
    }

    @Test("who reads a stream more slowly than it is written is let go")
    func lagging() throws {
        var stream: AnswerStream?
        let stage = try Stage(answer: { _ in
            var answer = SmallAnswer(body: [])
            answer.follow = { stream = $0 }
            return answer
        })
        let client = try stage.client("GET / HTTP/1.1\r\nHost: h\r\n\r\n", reads: false)
        #expect(stage.run { stream != nil })
        let event = String(repeating: "x", count: 1 << 16)
        var written = 0
        while stream?.write(event) == true, written < 10_000 { written += 1 }
        #expect(written < 10_000)
        #expect(stage.run { stage.server.open == 0 })
        _ = client
    }
}
