// Reads the decision logs of all nodes of a test and asks whether the promise was kept: by Redis's own time, no interval
// of the window's length holds more admissions of a subject than its limit.

import Primitives
import TestSupport
import Testing

struct WindowChecker {
    struct Admission {
        var time: Int64
        var count: Int
        var source: String
    }

    /// By key: `rate_limit:default:100/1s:ip:203.0.113.7`.
    private(set) var admissions: [String: [Admission]] = [:]

    init(_ paths: [String]) throws {
        for path in paths {
            for line in readFile(path).split(separator: "\n") {
                // TIME SOURCE COUNT KEY
                let fields = line.split(separator: " ")
                try #require(fields.count == 4, "\(line)")
                let time = try #require(Int64(fields[0]), "\(line)")
                let count = try #require(Int(fields[2]), "\(line)")
                admissions[String(fields[3]), default: []].append(
                    Admission(time: time, count: count, source: String(fields[1])))
            }
        }
        for key in Array(admissions.keys) { admissions[key]?.sort { $0.time < $1.time } }
    }

    /// All admissions, whoever decided them.
    var total: Int { admissions.values.joined().reduce(0) { $0 + $1.count } }

    func total(where isCounted: (Int64) -> Bool) -> Int {
        admissions.values.joined().filter { isCounted($0.time) }.reduce(0) { $0 + $1.count }
    }

    /// The most admissions of one subject in any window of `length` microseconds that ends where `isCounted` says so.
    func fullest(
        _ length: Int64 = 1_000_000, sources: Set<String> = ["window"], where isCounted: (Int64) -> Bool = { _ in true }
    ) -> Int {
        var fullest = 0
        for list in admissions.values {
            let list = list.filter { sources.contains($0.source) }
            var first = 0
            var inside = 0
            for admission in list {
                inside += admission.count
                // An entry leaves when it is more than the window old.
                while admission.time - list[first].time > length {
                    inside -= list[first].count
                    first += 1
                }
                if isCounted(admission.time) { fullest = max(fullest, inside) }
            }
        }
        return fullest
    }
}
