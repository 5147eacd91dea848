import LinuxIO
import Primitives
import Testing

@testable import Gateway

@Suite("Access logs, read back")
struct AccessLogEntryTests {
    private func read(_ line: String) throws -> AccessLogEntry { try AccessLogEntry(Array(line.utf8)[...]) }
    private func reason(_ line: String) -> String? {
        do throws(AccessLogEntry.Unreadable) {
            _ = try AccessLogEntry(Array(line.utf8)[...])
            return nil
        } catch {
            return error.description
        }
    }

    private static let time: Int64 = 1_772_366_400_123_000

    @Test("the same request in each format")
    func formats() throws {
        let own = try read(
            "2026-03-01T12:00:00.123Z 203.0.113.7 \"GET /a\\\"b?c=d\" 200 0 76 812us main http://127.0.0.1:1 admitted user:4%202"
        )
        #expect(own.time == Self.time)
        #expect(own.client == IPAddress("203.0.113.7"))
        #expect(own.request == Array("GET /a\"b?c=d".utf8))
        #expect(own.status == 200)
        #expect(own.identity == "user:4%202")
        #expect(!own.isUnlimited)
        let json = try read(
            """
            {"time":"2026-03-01T12:00:00.123Z","client":"203.0.113.7","request":"GET /a\\"b?c=d","status":200,\
            "received":0,"sent":76,"microseconds":812,"service":"main","backend":"http://127.0.0.1:1",\
            "limit":"admitted","identity":"user:4%202"}
            """)
        #expect(json == own)
        let common = try read(
            "203.0.113.7 - jane doe [01/Mar/2026:13:00:00 +0100] \"GET /a\\x22b?c=d HTTP/1.1\" 200 76")
        #expect(common.time == Self.time - 123_000)
        #expect(common.request == own.request)
        #expect(common.status == 200)
        let combined = try read(
            "203.0.113.7 - - [01/Mar/2026:07:00:00 -0500] \"GET /a\\\"b?c=d HTTP/2.0\" 200 76 \"http://a [x]\" \"curl/8\""
        )
        #expect(combined == common)
    }

    @Test("an IPv6 client, an offset, no fraction, spaces in JSON")
    func more() throws {
        let own = try read("2026-03-01T14:00:00+02:00 2001:db8::1 \"\" 400 0 0 1us - - -")
        #expect(own.client == IPAddress("2001:db8::1"))
        #expect(own.time == Self.time - 123_000)
        #expect(own.request.isEmpty)
        #expect(own.isUnlimited)
        let json = try read(
            "{ \"time\" : \"2026-03-01T12:00:00.123456Z\", \"client\":\"::1\", \"more\": null, \"request\":\"GET /\\u00e4\", \"status\": 200 }"
        )
        #expect(json.time == Self.time + 456)
        #expect(json.request == Array("GET /".utf8) + [0xe4])
        // No year, but an address that begins like one.
        let v6 = try read("2026:db8::1 - - [01/Mar/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 1")
        #expect(v6.client == IPAddress("2026:db8::1"))
    }

    @Test("chosen fields are enough where they tell when, who and what; names of requests are no identities")
    func chosen() throws {
        let entry = try read(
            "{\"method\":\"GET\",\"target\":\"/a b\",\"user\":\"50% off\",\"client\":\"::1\",\"time\":\"2026-03-01T12:00:00Z\"}"
        )
        #expect(entry.request == Array("GET /a b".utf8))
        #expect(entry.identity == "user:50%25 off")
        #expect(entry.status == 0 && !entry.isUnlimited)
        let named = "2026-03-01T12:00:00Z ::1 \"GET /\" 200 0 0 1us main http://a:1 admitted"
        #expect(try read(named + " id=4f").identity == nil)
        #expect(try read(named + " user:1 id=4f").identity == "user:1")
        #expect(reason("{\"time\":\"2026-03-01T12:00:00Z\",\"client\":\"::1\"}") == "no \"request\"")
        #expect(
            reason("{\"time\":\"2026-03-01T12:00:00Z\",\"request\":\"GET /\"}") == "no \"client\"")
    }

    @Test("what a node answers before any limit is told apart from what a backend answers")
    func unlimited() throws {
        #expect(try read("2026-03-01T12:00:00.000Z ::1 \"GET /\" 401 0 0 1us main - -").isUnlimited)
        #expect(try !read("2026-03-01T12:00:00.000Z ::1 \"GET /\" 401 0 0 1us main http://a:1 -").isUnlimited)
        #expect(try !read("2026-03-01T12:00:00.000Z ::1 \"GET /\" 429 0 0 1us main - refused").isUnlimited)
        #expect(try !read("2026-03-01T12:00:00.000Z ::1 \"GET /\" 503 0 0 1us main - -").isUnlimited)
        #expect(try read("::1 - - [01/Mar/2026:12:00:00 +0000] \"\\x16\\x03\" 400 1").request.isEmpty)
        #expect(try read("::1 - - [01/Mar/2026:12:00:00 +0000] \"-\" 408 0").request.isEmpty)
    }

    @Test(
        "a line that cannot be read is refused with the reason",
        arguments: [
            ("", "an empty line"), ("hello", "no address"), ("hello world", "no address"),
            ("2026-03-01T12:00:00Z", "ends before"), ("2026-03-01T12:00:00Z nobody \"GET /\" 200", "no address"),
            ("2026-03-01T12:00:00Z ::1 GET / 200", "in quotes"),
            ("2026-03-01T12:00:00Z ::1 \"GET / 200", "without an end"),
            ("2026-03-01T12:00:00Z ::1 \"GET /\" abc 1 1 1us - - -", "no number"),
            ("2026-03-01T12:00:00Z ::1 \"GET /\" 200 1 1 1us - -", "ends before what limits said"),
            ("::1 - - \"GET / HTTP/1.1\" 200 1", "no time"),
            ("::1 - - [1/Mar/2026] \"GET / HTTP/1.1\" 200 1", "no time"),
            ("::1 - - [31/Foo/2026:12:00:00 +0000] \"GET / HTTP/1.1\" 200 1", "no time"),
            ("::1 - - [01/Mar/2026:25:00:00 +0000] \"GET / HTTP/1.1\" 200 1", "no time"),
            ("::1 - - [01/Mar/2026:12:00:00 +0000] \"GET / HTTP/1.1\"", "ends before a status"),
            ("{}", "no \"time\""), ("{\"time\":1", "no JSON object"), ("{\"a\":{}}", "no JSON object"),
            ("{\"time\":\"noon\",\"client\":\"::1\",\"request\":\"GET /\",\"status\":200}", "no time"),
            (
                "{\"time\":\"2026-03-01T12:00:00Z\",\"client\":\"::1\",\"request\":\"GET /\",\"status\":200}x",
                "no JSON object"
            ),
        ])
    func unreadable(line: String, part: String) throws {
        let said = try #require(reason(line), "\(line)")
        #expect(said.contains(part), "\(said)")
    }

    @Test("no line, however it is cut or changed, ends the program")
    func hostile() {
        let lines = [
            "2026-03-01T12:00:00.123Z 203.0.113.7 \"GET /a\\\"b\" 200 0 76 812us main http://127.0.0.1:1 admitted user:1",
            "{\"time\":\"2026-03-01T12:00:00.123Z\",\"client\":\"::1\",\"request\":\"GET /\\u0041\",\"status\":200}",
            "::1 - - [01/Mar/2026:12:00:00 +0000] \"GET /\\x41 HTTP/1.1\" 200 1 \"-\" \"-\"",
        ]
        var read = 0
        for line in lines.map({ Array($0.utf8) }) {
            for cut in 0...line.count {
                for byte in [UInt8(ascii: "\\"), UInt8(ascii: "\""), 0xff, UInt8(ascii: "9"), UInt8(ascii: "T")] {
                    var changed = line
                    if cut < line.count { changed[cut] = byte }
                    if (try? AccessLogEntry(changed[...])) != nil { read += 1 }
                    if (try? AccessLogEntry(line[..<cut])) != nil { read += 1 }
                }
            }
        }
        #expect(read > 0)
    }

    @Test(
        "dates are those of the calendar",
        arguments: ["1970-01-01", "2000-02-29", "2024-02-29", "2026-11-26", "2100-03-01"])
    func dates(date: String) throws {
        let time = try #require(AccessLogEntry.time(rfc3339: Array("\(date)T00:00:00Z".utf8)[...]))
        #expect(SystemClock.timestamp(microseconds: time).hasPrefix(date))
    }
}
