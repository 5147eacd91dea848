import HTTP1
import Primitives
import Testing

/// No input may trap, lead outside its bytes, or be judged by how it was cut.
@Suite("A head of random bytes")
struct RandomHeadTests {
    static let requests = [
        "GET /api/users/42?x=1 HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\nConnection: keep-alive, X-A\r\n"
            + "X-A: 1\r\n\r\n",
        "\r\nPOST http://h/p?q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nContent-Length: 12\r\nUpgrade: a\r\nConnection: upgrade\r\nX_Real_IP: 1\r\n\r\n",
    ]
    static let responses = [
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 404\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nConnection: set-cookie, b\r\n\r\n",
    ]
    static let pieces = [
        "\r\n", "\n", "\r", " ", "\t", ":", "\u{0}", "\u{80}", ",", "5", "Host: x\r\n", "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "HTTP/1.1", "\r\n\r\n", "chunked", "/", "*", "%",
        "[",
    ]

    /// Replaces, inserts, removes or repeats something, a few times.
    static func mutate(_ input: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
        var input = input
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let at = Int.random(in: 0...input.count, using: &random)
            let end = min(input.count, at + Int.random(in: 0...6, using: &random))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: input.removeSubrange(at..<end)
            case 1: input.insert(contentsOf: input[at..<end], at: at)
            case 2: input.insert(UInt8.random(in: 0...255, using: &random), at: at)
            default:
                input.insert(contentsOf: bytes(pieces[Int.random(in: 0..<pieces.count, using: &random)]), at: at)
            }
        }
        return input
    }

    static func expectInside(_ fields: HeaderFields, _ length: Int, _ input: [UInt8]) {
        var end = -1
        for field in fields {
            #expect(end < 0 || field.line.lowerBound == end)
            #expect(field.name.lowerBound == field.line.lowerBound && !field.name.isEmpty)
            #expect(field.name.upperBound < field.value.lowerBound)
            #expect(field.value.upperBound <= field.line.upperBound - 2)
            end = field.line.upperBound
        }
        #expect(end < 0 || end == length - 2)
        #expect(length <= input.count)
    }

    static func check(_ input: [UInt8], _ limits: HeadLimits) {
        let (head, outcome) = parse(input, as: RequestHead.self, limits: limits)
        guard case .complete(let length) = outcome else { return }
        expectInside(head.fields, length, input)
        let ranges = [head.methodBytes, head.target, head.path, head.pathAndQuery, head.authority]
        for range in ranges + (head.upgrade.map { [$0] } ?? []) { #expect(range.upperBound <= length) }
        #expect(head.path.lowerBound == head.pathAndQuery.lowerBound || head.form == .asterisk)
        #expect(!head.methodBytes.isEmpty && !head.target.isEmpty)
        #expect(head.version == .http10 || !head.authority.isEmpty)
        // The rules that keep a second request out of a body, stated again without the parser.
        let framing = head.fields.filter { $0.id == .contentLength || $0.id == .transferEncoding }
        #expect(framing.count <= 1)
        #expect((framing.isEmpty) == (head.framing == .none))
    }

    static func checkResponse(_ input: [UInt8], _ limits: HeadLimits) {
        let (head, outcome) = parse(input, as: ResponseHead.self, limits: limits)
        guard case .complete(let length) = outcome else { return }
        expectInside(head.fields, length, input)
        #expect((100...999).contains(head.status))
        #expect(head.reason.upperBound <= length)
    }

    @Test("mutated from a good one stays inside its bytes and is judged the same however it is cut")
    func mutated() {
        var random = SplitMix64(seed: seed ^ 2)
        let tight = HeadLimits(requestLineBytes: 24, headerBytes: 60, headerCount: 3)
        for round in 0..<600 {
            let limits = round % 3 == 0 ? tight : HeadLimits()
            let source = Self.requests[round % Self.requests.count]
            let input = Self.mutate(bytes(source), &random)
            Self.check(input, limits)
            expectSameHoweverCut(input, as: RequestHead.self, limits: limits)
            let response = Self.mutate(bytes(Self.responses[round % Self.responses.count]), &random)
            Self.checkResponse(response, limits)
            expectSameHoweverCut(response, as: ResponseHead.self, limits: limits)
        }
    }

    @Test("from nothing but chance never traps")
    func chance() {
        var random = SplitMix64(seed: seed ^ 3)
        for _ in 0..<3000 {
            var input: [UInt8] = []
            for _ in 0..<Int.random(in: 0...30, using: &random) {
                if Bool.random(using: &random) {
                    input += bytes(Self.pieces[Int.random(in: 0..<Self.pieces.count, using: &random)])
                } else {
                    input.append(UInt8.random(in: 0...255, using: &random))
                }
            }
            let request = bytes("GET / HTTP/1.1\r\n") + input
            Self.check(input, HeadLimits())
            Self.check(request, HeadLimits())
            Self.checkResponse(bytes("HTTP/1.1 200 \r\n") + input, HeadLimits())
            _ = PathHazard(path: input.span)
        }
    }
}
