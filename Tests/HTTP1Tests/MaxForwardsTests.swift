import HTTP1
import LinuxIO
import Testing

@Suite("Max-Forwards")
struct MaxForwardsTests {
    @Test(
        "is a number of hops",
        arguments: [
            ("", .absent), ("Max-Forwards: 0\r\n", .hops(0)), ("max-forwards:007 \r\n", .hops(7)),
            ("Max-Forwards: 255\r\n", .hops(255)), ("Max-Forwards: 256\r\n", .hops(255)),
            ("Max-Forwards: 99999999999999999999999999999999999999999\r\n", .hops(255)),
            ("Max-Forwards: 00000000000000000000000000000000000000000\r\n", .hops(0)),
            ("Max-Forwards:\r\n", .malformed(at: 42)), ("Max-Forwards: +1\r\n", .malformed(at: 43)),
            ("Max-Forwards: -1\r\n", .malformed(at: 43)), ("Max-Forwards: 1 1\r\n", .malformed(at: 43)),
            ("Max-Forwards: 1\r\nMax-Forwards: 1\r\n", .malformed(at: 43)),
        ] as [(String, MaxForwards)])
    func values(_ field: String, _ expected: MaxForwards) {
        let input = bytes("OPTIONS / HTTP/1.1\r\nHost: h\r\n\(field)\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.maxForwards(in: input) == expected)
    }
}

extension RequestHead {
    fileprivate func maxForwards(in input: [UInt8]) -> MaxForwards { maxForwards(in: input.span) }
}

@Suite("The date")
struct DateFieldTests {
    @Test(
        "is written in the one form that may be sent",
        arguments: [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"), (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (.min, "Thu, 01 Jan 1970 00:00:00 GMT"), (.max, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] as [(Int64, String)])
    func dates(_ seconds: Int64, _ expected: String) {
        var output = ByteBuffer()
        output.appendDate(seconds: seconds)
        #expect(output.text == "Date: \(expected)\r\n")
    }
}
