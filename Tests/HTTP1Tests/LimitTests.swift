import HTTP1
import Testing

@Suite("A limit of the head")
struct LimitTests {
    @Test("counts the bytes of the request line without its end", arguments: [14, 15, 40, 8192])
    func requestLine(_ limit: Int) {
        let limits = HeadLimits(requestLineBytes: limit)
        let path = "/" + String(repeating: "a", count: limit - 14)
        let fits = bytes("GET \(path) HTTP/1.1\r\nHost: h\r\n\r\n")
        #expect(parse(fits, as: RequestHead.self, limits: limits).1 == .complete(length: fits.count))
        let exceeds = bytes("GET \(path)a HTTP/1.1\r\nHost: h\r\n\r\n")
        let expected = HeadOutcome.malformed(Violation(.startLineTooLong, at: limit + 2))
        #expect(parse(exceeds, as: RequestHead.self, limits: limits).1 == expected)
        #expect(Rule.startLineTooLong.status == 414)
        if limit < 100 {
            expectSameHoweverCut(fits, as: RequestHead.self, limits: limits)
            expectSameHoweverCut(exceeds, as: RequestHead.self, limits: limits)
        }
    }

    @Test("counts the bytes of all field lines with their ends", arguments: [9, 10, 50])
    func headerBytes(_ limit: Int) {
        let limits = HeadLimits(headerBytes: limit)
        let name = String(repeating: "h", count: limit - 9)
        let fits = bytes("GET / HTTP/1.1\r\nHost:\(name)h\r\n\r\n")
        let exceeds = bytes("GET / HTTP/1.1\r\nHost:\(name)hhh\r\n\r\n")
        #expect(fits.count == 16 + limit - 1 + 2)
        #expect(parse(fits, as: RequestHead.self, limits: limits).1 == .complete(length: fits.count))
        let expected = HeadOutcome.malformed(Violation(.headerBytes, at: 16 + limit + 2))
        #expect(parse(exceeds, as: RequestHead.self, limits: limits).1 == expected)
        #expect(Rule.headerBytes.status == 431)
        expectSameHoweverCut(fits, as: RequestHead.self, limits: limits)
        expectSameHoweverCut(exceeds, as: RequestHead.self, limits: limits)
    }

    @Test("is noticed before the line or the head has ended")
    func unfinished() {
        let limits = HeadLimits(requestLineBytes: 20, headerBytes: 20)
        let line = bytes("GET /aaaaaaaaaaaaaaaaaaaaaaaa")
        #expect(
            parse(line, as: RequestHead.self, limits: limits).1 == .malformed(Violation(.startLineTooLong, at: 22)))
        let name = bytes("GET / HTTP/1.1\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        #expect(parse(name, as: RequestHead.self, limits: limits).1 == .malformed(Violation(.headerBytes, at: 38)))
        let value = bytes("GET / HTTP/1.1\r\na:        aaaaaaaaaaaaaaaaaaaaa")
        #expect(parse(value, as: RequestHead.self, limits: limits).1 == .malformed(Violation(.headerBytes, at: 38)))
    }

    @Test("counts field lines", arguments: [1, 2, 100])
    func headerCount(_ limit: Int) {
        let limits = HeadLimits(headerCount: limit)
        let more = String(repeating: "A: b\r\n", count: limit - 1)
        let fits = bytes("GET / HTTP/1.1\r\nHost: h\r\n\(more)\r\n")
        #expect(parse(fits, as: RequestHead.self, limits: limits).1 == .complete(length: fits.count))
        let exceeds = bytes("GET / HTTP/1.1\r\nHost: h\r\n\(more)A: b\r\n\r\n")
        let expected = HeadOutcome.malformed(Violation(.headerCount, at: fits.count - 2))
        #expect(parse(exceeds, as: RequestHead.self, limits: limits).1 == expected)
        #expect(Rule.headerCount.status == 431)
    }

    @Test("is off where it is zero or less", arguments: [0, -1, Int.min, Int.max])
    func none(_ limit: Int) {
        let limits = HeadLimits(requestLineBytes: limit, headerBytes: limit, headerCount: limit)
        let path = String(repeating: "a", count: 20_000)
        let more = String(repeating: "A: \(path)\r\n", count: 200)
        let input = bytes("GET /\(path) HTTP/1.1\r\nHost: h\r\n\(more)\r\n")
        #expect(parse(input, as: RequestHead.self, limits: limits).1 == .complete(length: input.count))
    }

    @Test("says how many bytes always bring a decision")
    func headBytesMax() {
        let limits = HeadLimits(requestLineBytes: 20, headerBytes: 30)
        let longest = bytes("\r\nGET /aaaaaa HTTP/1.1\r\nHost: " + String(repeating: "h", count: 22) + "\r\n\r\n")
        #expect(parse(longest, as: RequestHead.self, limits: limits).1 == .complete(length: longest.count))
        #expect(limits.headBytesMax == longest.count + 1)
        let endless = bytes("\r\nGET /aaaaaa HTTP/1.1\r\n" + String(repeating: "h", count: 100))
        for count in 0...endless.count {
            let outcome = parse(Array(endless.prefix(count)), as: RequestHead.self, limits: limits).1
            #expect((outcome == .needMore) == (count < limits.headBytesMax))
        }
    }

    @Test("has a default that browsers never reach")
    func defaults() {
        let limits = HeadLimits()
        #expect(limits.requestLineBytes == 8192)
        #expect(limits.headerBytes == 32768)
        #expect(limits.headerCount == 100)
    }
}

@Suite("Progress of a head")
struct HeadProgressTests {
    @Test("is news at first, at the end of each line and after a kilobyte")
    func news() {
        var progress = HeadProgress()
        let input = bytes("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        var news: [Int] = []
        for length in 0...input.count where progress.hasNews(inFirst: length, of: input) {
            news.append(length)
        }
        #expect(news == [1, 16, 25, 27])
        progress.reset()
        let long = [UInt8](repeating: 0x61, count: 5000)
        news = [3, 1026, 1027, 2050, 2051].filter { progress.hasNews(inFirst: $0, of: long) }
        #expect(news == [3, 1027, 2051])
    }
}
