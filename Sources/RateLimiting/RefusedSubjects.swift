// Who is refused most, in little memory: the "space-saving" algorithm (Metwally, Agrawal, El Abbadi 2005). Where a new
// subject finds no place it takes that of the smallest and inherits its count, so that whoever has more than 1/16 of all
// refusals is surely listed, however many others there are.

package import Identity
import Synchronization

package struct RefusedSubjects: Sendable {
    package struct Entry: Sendable {
        package var subject: SubjectKey
        /// Refusals, at most.
        package var count: Int
        /// How many of them may be others'.
        package var error: Int
    }

    package private(set) var entries: [Entry] = []
    /// Where the last one was found: one client that floods comes again and again.
    private var recent = 0

    package static let countMax = 16

    package init() { entries.reserveCapacity(Self.countMax) }

    package mutating func count(_ subject: SubjectKey) {
        if recent < entries.count, entries[recent].subject == subject {
            entries[recent].count += 1
            return
        }
        var smallest = 0
        for index in entries.indices {
            if entries[index].subject == subject {
                entries[index].count += 1
                recent = index
                return
            }
            if entries[index].count < entries[smallest].count { smallest = index }
        }
        guard entries.count == Self.countMax else {
            entries.append(Entry(subject: subject, count: 1, error: 0))
            recent = entries.count - 1
            return
        }
        let inherited = entries[smallest].count
        entries[smallest] = Entry(subject: subject, count: inherited + 1, error: inherited)
        recent = smallest
    }

    /// Halves all counts: what is long past fades.
    package mutating func fade() {
        for index in entries.indices {
            entries[index].count /= 2
            entries[index].error /= 2
        }
        entries.removeAll { $0.count == 0 }
        recent = 0
    }
}

/// The same for one worker, whose thread writes it and others read it now and then.
package final class RefusedTable: Sendable {
    private let subjects = Mutex(RefusedSubjects())

    package init() {}

    package func count(_ subject: SubjectKey) { subjects.withLock { $0.count(subject) } }
    package func fade() { subjects.withLock { $0.fade() } }
    package var entries: [RefusedSubjects.Entry] { subjects.withLock { $0.entries } }
}
