/// The longest schedule: two bytes an entry make 128 KiB.
let scheduleLengthMax = 65_535

/// One full cycle of nginx's smooth weighted round robin (`ngx_http_upstream_round_robin.c`, 2012): every turn each
/// entry gains its weight, the largest is taken and pays the sum of all. Each position appears exactly as often as its
/// weight says, spread as evenly as whole turns allow: 5, 1, 1 gives a a b a c a a.
///
/// Run once when the snapshot is built, so that a pick is one look into the table, and workers that share nothing but
/// a counter keep the proportions exact.
/// - Parameter weights: 1 or more each, with no common divisor.
func smoothSchedule(_ weights: [Int]) -> [UInt16] {
    let weights = scaledDown(weights)
    let total = weights.reduce(0, +)
    var current = [Int](repeating: 0, count: weights.count)
    var schedule: [UInt16] = []
    schedule.reserveCapacity(total)
    for _ in 0..<total {
        var best = 0
        for position in weights.indices {
            current[position] += weights[position]
            if current[position] > current[best] { best = position }
        }
        current[best] -= total
        schedule.append(UInt16(best))
    }
    return schedule
}

/// The configuration refuses weights with a longer cycle; here they lose precision, and no entry its place.
private func scaledDown(_ weights: [Int]) -> [Int] {
    var weights = weights
    while true {
        var sum = 0
        var isLong = weights.count > scheduleLengthMax
        for weight in weights {
            let (next, overflow) = sum.addingReportingOverflow(weight)
            sum = overflow ? .max : next
            if overflow { break }
        }
        isLong = sum > scheduleLengthMax && weights.contains { $0 > 1 }
        if !isLong { return weights }
        for position in weights.indices { weights[position] = max(1, weights[position] / 2) }
    }
}

func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return a
}
