import Health
import Membership
import Primitives
import Testing

private let users = BackendKey(service: "users", url: "http://a:1")

private func news(_ name: String, _ sequence: UInt64, _ count: Int, boot: UInt64 = 1) -> LoadNews {
    LoadNews(
        node: node(name), boot: BootID(boot), sequence: sequence,
        inFlight: count == 0 ? [:] : [users.service: [users.url: count]])
}

@Suite struct LoadNewsTests {
    @Test("a node's last word counts; repeated, late and own words do not")
    func table() {
        var table = LoadTable(node: node("me"))
        let now = moment(.zero).monotonic
        #expect(table.heard(news("x", 1, 3), at: now) == true)
        #expect(table.heard(news("y", 1, 4), at: now) == true)
        #expect(table.heard(news("me", 1, 9), at: now) == false)
        #expect(table.total(of: users) == 7)
        #expect(table.heard(news("x", 3, 1), at: now) == true)
        #expect(table.heard(news("x", 3, 5), at: now) == false)
        #expect(table.heard(news("x", 2, 5), at: now) == false)
        #expect(table.total(of: users) == 5)
        #expect(table.heard(news("x", 1, 2, boot: 2), at: now) == true)
        #expect(table.heard(news("y", 2, 0), at: now) == true)
        #expect(table.total(of: users) == 2)
        #expect(table.total(of: BackendKey(service: "users", url: "http://b:1")) == 0)
    }

    @Test("who is silent for a second counts no more")
    func silence() {
        var table = LoadTable(node: node("me"))
        #expect(table.heard(news("x", 1, 3), at: moment(.zero).monotonic) == true)
        #expect(table.heard(news("y", 1, 4), at: moment(.milliseconds(500)).monotonic) == true)
        #expect(table.expire(at: moment(.milliseconds(999)).monotonic) == false)
        #expect(table.expire(at: moment(.milliseconds(1_000)).monotonic) == true)
        #expect(table.total(of: users) == 4)
        table.forgetAll()
        #expect(table.total(of: users) == 0)
    }

    @Test("news are written and read back; what has another shape is refused")
    func json() throws {
        let said = news("x", 7, 12)
        #expect(try LoadNews(json: Array(said.json.utf8)) == said)
        for text in [
            "", "{}", said.json.replacing("12", with: "-1"), said.json.replacing("12", with: "99999999999"),
            said.json.replacing("\"x\"", with: "\"x y\""), String(repeating: " ", count: 2 << 20),
        ] {
            #expect(throws: HealthFormatError.self) { try LoadNews(json: Array(text.utf8)) }
        }
    }
}
