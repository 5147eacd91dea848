import Identity
import Primitives
import Testing

@testable import RateLimiting

@Suite("Who is refused most")
struct RefusedSubjectsTests {
    private func subject(_ number: UInt32) -> SubjectKey { SubjectKey(IPAddress(v4: number)) }

    @Test("a few are counted exactly")
    func few() {
        var refused = RefusedSubjects()
        for number in 1...5 { for _ in 0..<number { refused.count(subject(UInt32(number))) } }
        #expect(refused.entries.count == 5)
        for entry in refused.entries { #expect(entry.error == 0) }
        #expect(refused.entries.map(\.count).sorted() == [1, 2, 3, 4, 5])
    }

    @Test("whoever has more than 1/16 of all is listed, however many others there are, and nothing grows")
    func heavy() {
        var refused = RefusedSubjects()
        for round in 0..<10_000 {
            refused.count(subject(UInt32(1_000 + round)))
            if round % 8 == 0 { refused.count(subject(1)) }
            #expect(refused.entries.count <= RefusedSubjects.countMax)
        }
        let found = refused.entries.first { $0.subject == subject(1) }
        #expect(found.map { $0.count - $0.error <= 1_250 && $0.count >= 1_250 } == true)
    }

    @Test("what is long past fades away")
    func fading() {
        var refused = RefusedSubjects()
        for _ in 0..<6 { refused.count(subject(1)) }
        refused.count(subject(2))
        refused.fade()
        #expect(refused.entries.map(\.count) == [3])
        refused.fade()
        refused.fade()
        #expect(refused.entries.isEmpty)
        refused.count(subject(3))
        #expect(refused.entries.map(\.count) == [1])
    }
}
