import Health
import Membership
import Testing

@Suite("News of limits")
struct LimitNewsTests {
    private func news(_ name: String, _ used: Int, refused: Int = 0) -> LimitNews {
        LimitNews(
            node: node(name),
            uses: [LimitNews.Use(policy: "few", tier: nil, subject: "ip:1.2.3.4", used: used, limit: 10, window: "1s")],
            refusals: refused == 0 ? [] : [LimitNews.Refusal(policy: "few", subject: "ip:1.2.3.4", count: refused)])
    }

    @Test("what several nodes say of one subject is added up, and the nearest to a bound come first")
    func merged() {
        var second = news("b", 4, refused: 2)
        second.uses.append(
            LimitNews.Use(policy: "few", tier: "gold", subject: "user:7", used: 90, limit: 100, window: "1s"))
        second.refusals.append(LimitNews.Refusal(policy: "few", subject: "ip:9.9.9.9", count: 8))
        let (uses, refusals) = LimitNews.merged([news("a", 3, refused: 5), second], atMost: 16, isKept: true)
        #expect(uses.map(\.subject) == ["user:7", "ip:1.2.3.4"])
        #expect(uses.map(\.used) == [90, 7])
        #expect(refusals.map(\.count) == [8, 7])
        #expect(LimitNews.merged([news("a", 3), second], atMost: 1, isKept: true).uses.count == 1)
    }

    @Test("no more than a limit that is kept has been used; one that nobody keeps can be exceeded")
    func bounded() {
        let all = [news("a", 8), news("b", 7)]
        #expect(LimitNews.merged(all, atMost: 16, isKept: true).uses.map(\.used) == [10])
        #expect(LimitNews.merged(all, atMost: 16, isKept: false).uses.map(\.used) == [15])
    }

    @Test("news are written and read back; what has another shape is refused, and no more is taken than is shown")
    func json() throws {
        let said = news("a", 3, refused: 5)
        #expect(try LimitNews(json: Array(said.json.utf8)) == said)
        for text in [
            "", "{}", "[]", said.json.replacing("\"used\":3", with: "\"used\":-3"),
            said.json.replacing("\"count\":5", with: "\"count\":99999999999999999"),
            said.json.replacing("1.2.3.4", with: "\\u001b[2J"), said.json.replacing("\"a\"", with: "\"a b\""),
            said.json.replacing("1.2.3.4", with: String(repeating: "x", count: 300)),
            said.json + String(repeating: " ", count: 1 << 20),
        ] {
            #expect(throws: HealthFormatError.self, "\(text.prefix(80))") { try LimitNews(json: Array(text.utf8)) }
        }
        var long = said
        long.uses = Array(repeating: said.uses[0], count: 100)
        #expect(try LimitNews(json: Array(long.json.utf8)).uses.count == LimitNews.rowsMax)
    }
}
