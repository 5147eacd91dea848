import Identity
import Primitives
import Testing

@testable import Credentials

@Suite("API keys")
struct KeyTests {
    @Test("a key's hash is that of sha256sum, and its id the beginning of it")
    func hash() {
        let hash = APIKeys.hash(Array("abc".utf8))
        #expect(hash == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(APIKeys.id(ofHash: hash) == "ba7816bf8f01cfea")
        #expect(APIKeys.make([1, 2, 3, 0xf000_0000_0000_0000]).hasPrefix("slc_0000000000000001"))
        #expect(APIKeys.make([1, 2, 3, 4]).utf8.count == 4 + 64)
    }

    @Test("a record comes back from its JSON, and what is none is refused")
    func record() throws {
        let record = APIKeyRecord(name: "ci", user: "42", org: "acme", tier: "free", scopes: ["read"], created: "now")
        #expect(APIKeyRecord(json: record.json) == record)
        #expect(APIKeyRecord(json: "{\"name\":\"a\",\"later\":[1]}") == APIKeyRecord(name: "a"))
        for text in [
            "", "null", "[]", "{}", "{\"name\":1}", "{\"name\":\"a\",\"user\":7}", String(repeating: "x", count: 5_000),
        ] {
            #expect(APIKeyRecord(json: text) == nil, "\(text.prefix(40))")
        }
        #expect(record.claims(id: "k")?.keyID == "k")
        #expect(APIKeyRecord(name: "a", user: "x\r\nX-Admin: 1").claims(id: "k") == nil)
    }

    private static let start = MonotonicTime(nanoseconds: 1)
    private static let record = APIKeyRecord(name: "a")

    @Test("an answer is believed for five seconds; then it is asked again, and counts on where nobody answers")
    func freshness() {
        var directory = KeyDirectory()
        #expect(directory.look("h", at: Self.start) == .ask(known: nil))
        directory.learn("h", Self.record, at: Self.start)
        directory.learn("gone", nil, at: Self.start)
        let end = Self.start + KeyDirectory.freshness
        #expect(directory.look("h", at: end - .nanoseconds(1)) == .known(Self.record))
        #expect(directory.look("gone", at: end - .nanoseconds(1)) == .absent)
        #expect(directory.look("h", at: end) == .ask(known: Self.record))
        #expect(directory.look("gone", at: end) == .ask(known: nil))
        directory.learn("h", Self.record, at: end)
        directory.forget("h")
        #expect(directory.look("h", at: end) == .ask(known: nil))
    }

    @Test("an answer that news has overtaken is not believed, and Redis is asked again for all who wait")
    func overtaken() {
        var questions = KeyQuestions<Int>()
        func asks(_ number: Int, _ hash: String) -> Bool { questions.add(number, hash) }
        func answered(_ hash: String) -> [Int]? { questions.answered(hash) }
        #expect([asks(1, "h"), asks(2, "h"), asks(3, "other")] == [true, false, true])
        questions.doubt("h")
        questions.doubt("never asked")
        #expect([answered("other"), answered("h")] == [[3], nil])
        #expect(questions.isAsked("h"))
        #expect(!asks(4, "h"))
        #expect(answered("h") == [1, 2, 4])
        #expect(!questions.isAsked("h"))
        // News of something that nobody has named.
        #expect(asks(5, "h") && asks(6, "other"))
        questions.doubtAll()
        #expect([answered("h"), answered("other"), answered("h")] == [nil, nil, [5]])
        // Where nobody can tell, doubt ends with the question.
        questions.doubt("other")
        let failed = questions.failed("other")
        #expect(failed == [6])
        #expect(asks(7, "other") && answered("other") == [7])
    }

    @Test("when news may have been lost, nothing is believed and nothing that was good is forgotten")
    func doubt() {
        var directory = KeyDirectory()
        directory.learn("h", Self.record, at: Self.start)
        directory.learn("gone", nil, at: Self.start)
        directory.doubtAll(at: Self.start)
        #expect(directory.look("h", at: Self.start) == .ask(known: Self.record))
        #expect(directory.look("gone", at: Self.start) == .ask(known: nil))
        #expect(directory.count == 1)
    }

    @Test("a flood of made-up keys leaves its bound and the good ones")
    func bound() {
        var directory = KeyDirectory(countMax: 100)
        for index in 0..<50 { directory.learn("good\(index)", Self.record, at: Self.start) }
        for index in 0..<10_000 { directory.learn("bad\(index)", nil, at: Self.start) }
        #expect(directory.count == 100)
        for index in 0..<50 { #expect(directory.look("good\(index)", at: Self.start) == .known(Self.record)) }
    }
}
