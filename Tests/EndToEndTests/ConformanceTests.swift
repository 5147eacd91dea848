import Primitives
import Synchronization
import TestSupport
import Testing

/// One row of the conformance table: what a client sends, what a backend gets and answers, what the client gets.
///
/// Texts are bytes, one a scalar. In what a backend gets, `{added}` are the fields that the node adds to each request and
/// `{end}` those that name the backend, with the empty line; `{ok}` is the plain answer and `{OK}` the same as the client
/// gets it.
struct Conformance: Sendable {
    enum Received: Sendable {
        /// The node refuses: status and code. The connection ends.
        case refused(Int, String)
        /// The node answers by itself: status and code. The connection lives.
        case declined(Int, String)
        /// Exactly these bytes, and the connection lives.
        case bytes(String)
        /// Exactly these bytes, and the connection ends.
        case lastBytes(String)
        /// These bytes as an answer, and a refusal of what follows it.
        case bytesThenRefused(String, Int, String)
        /// 200 from the node itself with this body; the connection lives.
        case own(String)
        /// A head of these bytes and a body in any chunks; the connection lives.
        case chunks(String, String)
        /// Interim answers, and the node's own behind them; the connection lives.
        case interimsThenDeclined(Int, String)
        /// An answer that does not come to its end, which the client can tell.
        case broken
        /// The node's own where the fault is there with the head, and else an answer that does not come to its end.
        case brokenUnlessDeclined(Int, String)
    }

    /// The rule at stake, or what is tried.
    var rule: String
    var request: String
    /// `nil`: nothing at all. Of a request that is refused midway, at most this.
    var forwarded: String?
    var answer = "{ok}"
    /// Whether the backend closes its connection behind its answer.
    var closes = false
    /// Whether it answers when it has the head, and not when it has the body.
    var early = false
    var received: Received

    /// Whether the connection ends behind the answer, and not in it.
    var leavesAnEnd: Bool {
        switch received {
        case .broken, .brokenUnlessDeclined: false
        case .refused, .declined, .bytes, .lastBytes, .bytesThenRefused, .own, .chunks, .interimsThenDeclined: true
        }
    }

    /// Whether all that the backend gets is there when the answer is.
    var leavesNothingBehind: Bool {
        if case .refused = received { false } else { true }
    }

    init(_ rule: String, _ request: String, refused status: Int, _ code: String, forwarded: String? = nil) {
        self.init(rule, request, forwarded: forwarded, .refused(status, code))
    }

    init(_ rule: String, _ request: String, declined status: Int, _ code: String) {
        self.init(rule, request, forwarded: nil, .declined(status, code))
    }

    init(
        _ rule: String, _ request: String, forwarded: String?, answer: String = "{ok}", closes: Bool = false,
        early: Bool = false, _ received: Received = .bytes("{OK}")
    ) {
        self.rule = rule
        self.request = request
        self.forwarded = forwarded
        self.answer = answer
        self.closes = closes
        self.early = early
        self.received = received
    }
}

/// A backend that records every byte and answers each request with the bytes that it was told.
private final class ScriptedBackend: Sendable {
    struct Script: Sendable {
        var answer: [UInt8] = []
        var closes = false
        var early = false
        var cuts = ConformanceTests.Cuts.none
    }

    private let script = Mutex(Script())
    private let record = Mutex<[UInt8]>([])

    func play(_ next: Script) {
        script.withLock { $0 = next }
        record.withLock { $0 = [] }
    }

    var received: [UInt8] { record.withLock { $0 } }

    func serve(_ wire: Wire) throws {
        wire.received = { bytes in self.record.withLock { $0 += bytes } }
        while let head = try wire.readHead() {
            if head.target == "/sentinel" {
                try wire.send(ConformanceTests.sentinelAnswer)
                continue
            }
            let script = script.withLock { $0 }
            if !script.early { try wire.skipBody(of: head) }
            try ConformanceTests.send(script.answer, script.cuts, on: wire)
            if script.closes { return }
            if script.early { try wire.skipBody(of: head) }
        }
    }
}

extension Wire {
    fileprivate func skipBody(of head: WireMessage) throws {
        if let length = head.value("Content-Length").flatMap({ Int($0) }) {
            _ = try read(length)
        } else if head.value("Transfer-Encoding") != nil {
            while let line = try readLine(), let size = Int(line, radix: 16), size > 0 { _ = try read(size + 2) }
            while let line = try readLine(), !line.isEmpty {}
        }
    }
}

@Suite("The conformance table")
struct ConformanceTests {
    static let ok = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok"
    static let okReceived = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\nVia: 1.1 sluice\r\n\r\nok"
    static let sentinelAnswer = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 8\r\n\r\nsentinel"
    static let sentinel = "GET /t/sentinel HTTP/1.1\r\nHost: h\r\n\r\n"

    static func bytes(_ text: String) -> [UInt8] { text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) } }

    /// How bytes are sent: in one piece, byte by byte, or in random pieces of the seed.
    enum Cuts: Equatable, Sendable {
        case none
        case everywhere
        case random(UInt64)
    }

    static let cuts: [Cuts] = [.none, .everywhere, .random(.random(in: 0 ... .max)), .random(.random(in: 0 ... .max))]

    static func send(_ bytes: [UInt8], _ cuts: Cuts, on wire: Wire) throws {
        switch cuts {
        case .none: try wire.send(bytes)
        case .everywhere: for byte in bytes { try wire.send([byte]) }
        case .random(let seed):
            var random = SplitMix64(seed: seed)
            var start = 0
            while start < bytes.count {
                let end = min(bytes.count, start + Int.random(in: 1...40, using: &random))
                try wire.send(Array(bytes[start..<end]))
                start = end
            }
        }
    }

    /// What the node adds to a request, learned from a plain one.
    private struct Added {
        var fields = ""
        var end = ""

        init(_ plain: [UInt8]) throws {
            let text = String(decoding: plain, as: UTF8.self)
            let start = "GET / HTTP/1.1\r\nHost: h\r\n"
            let backend = try #require(text.firstRange(of: "X-Origin-Host: "))
            try #require(text.hasPrefix(start) && text.hasSuffix("\r\n\r\n"))
            fields = String(text[text.index(text.startIndex, offsetBy: start.count)..<backend.lowerBound])
            end = String(text[backend.lowerBound...])
        }

        func fill(_ text: String) -> [UInt8] {
            ConformanceTests.bytes(
                text.replacing("{added}", with: fields).replacing("{end}", with: end)
                    .replacing("{added10}", with: fields.replacing("Via: 1.1", with: "Via: 1.0")))
        }
    }

    @Test(
        "holds row for row at the client and at the backend, whole, byte by byte, and cut by chance", arguments: cuts)
    func table(cuts: Cuts) throws {
        try Scene.play { scene in
            let scripted = ScriptedBackend()
            let backend = scene.add(try RecordingBackend(serving: { _, wire, _ in try scripted.serve(wire) }))
            let node = try scene.node(
                File([
                    File.Service(name: "t", path: "/t", urls: [backend.url], health: Self.health),
                    File.Service(name: "users", path: "/api/users", urls: [backend.url], health: Self.health),
                    File.Service(
                        name: "narrow", path: "/narrow", urls: [backend.url], more: "methods: [GET, HEAD]",
                        health: Self.health),
                    File.Service(
                        name: "small", path: "/small", urls: [backend.url], more: "limits: {bodyBytes: 10}",
                        health: Self.health),
                ]))
            scripted.play(.init(answer: Self.bytes(Self.ok)))
            let plain = try node.connect()
            try plain.send("GET /t HTTP/1.1\r\nHost: h\r\n\r\n")
            #expect(try plain.readResponse().text == "ok")
            let added = try Added(scripted.received)
            for row in Self.requests + Self.answers {
                let label = "\(row.rule): \(row.request.prefix(200).debugDescription)"
                do {
                    try Self.run(row, cuts, node, scripted, added, label)
                } catch {
                    Issue.record("\(label): \(error)")
                    if let code = node.process.exit {
                        Issue.record("the node has ended with \(code)")
                        return
                    }
                }
            }
        }
    }

    private static let health = "active: false, failures: 1000"
    /// What is shorter and sent in one piece is received in one.
    private static let atOnceMax = 16 << 10

    private static func run(
        _ row: Conformance, _ cuts: Cuts, _ node: SluiceNode, _ backend: ScriptedBackend, _ added: Added,
        _ label: String
    ) throws {
        backend.play(
            .init(
                answer: bytes(row.answer.replacing("{ok}", with: ok)), closes: row.closes, early: row.early,
                cuts: cuts))
        let client = try node.connect()
        // The node may refuse, and stop reading, before all is sent.
        try? send(bytes(row.request), cuts, on: client)
        let method = String(row.request.prefix { $0 != " " })
        let lives = try receive(row.received, method, cuts, on: client, label)
        if case .refused = row.received, let forwarded = row.forwarded {
            // What arrived before the refusal may have left for the backend, in part or not at all.
            let got = backend.received
            #expect(added.fill(forwarded).starts(with: got), "\(label): the backend got \(text(got))")
            // Nothing, where all of it arrived at once.
            if cuts == .none, row.request.utf8.count < atOnceMax {
                #expect(got.isEmpty, "\(label): the backend got \(text(got))")
            }
        } else if let forwarded = row.forwarded {
            let wanted = added.fill(forwarded)
            // In pieces, chunks are cut as they came: what they carry counts.
            let same = { cuts == .none ? backend.received == wanted : joined(backend.received) == joined(wanted) }
            try? eventually("the backend has all") { same() }
            #expect(same(), "\(label): the backend got \(text(backend.received)) and not \(text(wanted))")
        }
        let before = backend.received
        if row.forwarded == nil { #expect(before.isEmpty, "\(label): the backend got \(text(before))") }
        // Whatever has happened, the next request gets its own answer.
        if lives {
            try client.send(sentinel)
            #expect(try client.readResponse().text == "sentinel", "\(label)")
        } else if row.leavesAnEnd {
            #expect(try client.endsHere(), "\(label)")
        }
        let next = try node.connect()
        try next.send(sentinel)
        #expect(try next.readResponse().text == "sentinel", "\(label)")
        let sentinels = added.fill(
            String(repeating: "GET /sentinel HTTP/1.1\r\nHost: h\r\n{added}{end}", count: lives ? 2 : 1))
        let after = backend.received
        #expect(
            after.count >= sentinels.count && after.suffix(sentinels.count) == sentinels[...],
            "\(label): the backend got \(text(after))")
        guard row.forwarded == nil || row.leavesNothingBehind else { return }
        let expected = before.count + sentinels.count
        // What comes behind an answer, and later than it, is met by the next request, which is then sent once more.
        #expect(
            cuts == .none ? after.count == expected : after.count >= expected,
            "\(label): the backend got \(text(after))")
    }

    /// Holds what the client gets against the row; returns whether its connection lives.
    private static func receive(
        _ received: Conformance.Received, _ method: String, _ cuts: Cuts, on client: Wire, _ label: String
    ) throws -> Bool {
        func expectBytes(_ expected: String) throws {
            let wanted = bytes(expected.replacing("{OK}", with: okReceived))
            let got = try client.read(wanted.count)
            #expect(text(got) == text(wanted), "\(label)")
        }
        func expectProblem(_ answer: WireMessage, _ status: Int, _ code: String, lives: Bool) {
            #expect(answer.status == status, "\(label)")
            #expect(answer.value("Content-Type") == "application/problem+json", "\(label)")
            #expect(answer.value("Date")?.hasSuffix(" GMT") == true, "\(label)")
            if method != "HEAD" { #expect(answer.text.contains("\"code\":\"\(code)\""), "\(label): \(answer.text)") }
            #expect(answer.value("Connection") == (lives ? nil : "close"), "\(label)")
        }
        switch received {
        case .refused(let status, let code):
            expectProblem(try client.readResponse(to: method), status, code, lives: false)
            return false
        case .declined(let status, let code):
            expectProblem(try client.readResponse(to: method), status, code, lives: true)
            return true
        case .bytes(let expected):
            try expectBytes(expected)
            return true
        case .lastBytes(let expected):
            try expectBytes(expected)
            return false
        case .bytesThenRefused(let expected, let status, let code):
            try expectBytes(expected)
            expectProblem(try client.readResponse(to: method), status, code, lives: false)
            return false
        case .own(let body):
            let answer = try client.readResponse(to: method)
            #expect(answer.startLine == "HTTP/1.1 200 OK", "\(label)")
            #expect(answer.value("Date")?.hasSuffix(" GMT") == true, "\(label)")
            #expect(answer.value("Content-Type") == (body.isEmpty ? nil : "message/http"), "\(label)")
            #expect(answer.text == body, "\(label)")
            return true
        case .chunks(let head, let body):
            let answer = try client.readResponse(to: method)
            #expect(answer.head == head, "\(label)")
            #expect(answer.text == body, "\(label)")
            return true
        case .interimsThenDeclined(let status, let code):
            var answer = try client.readResponse(to: method)
            while answer.status < 200 { answer = try client.readResponse(to: method) }
            expectProblem(answer, status, code, lives: true)
            return true
        case .broken:
            #expect(throws: WireError.self, "\(label)") { _ = try client.readResponse(to: method) }
            return false
        case .brokenUnlessDeclined(let status, let code):
            do {
                expectProblem(try client.readResponse(to: method), status, code, lives: true)
                return true
            } catch is WireError {
                #expect(cuts != .none, "\(label)")
                return false
            }
        }
    }

    private static func text(_ bytes: some Sequence<UInt8>) -> String {
        String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) })).debugDescription
    }

    /// A message with its chunks in one.
    private static func joined(_ message: [UInt8]) -> [UInt8] {
        guard let end = message.firstRange(of: bytes("\r\n\r\n"))?.upperBound,
            message[..<end].contains(bytes("Transfer-Encoding: chunked"))
        else { return message }
        var result = Array(message[..<end])
        var rest = message[end...]
        while let lineEnd = rest.firstRange(of: [13, 10]),
            let size = Int(String(decoding: rest[..<lineEnd.lowerBound], as: UTF8.self), radix: 16), size > 0,
            rest.count >= lineEnd.upperBound - rest.startIndex + size + 2
        {
            result += rest[lineEnd.upperBound..<(lineEnd.upperBound + size)]
            rest = rest[(lineEnd.upperBound + size + 2)...]
        }
        return result + rest
    }
}
