/* random.mjs -- numbers that a seed decides, so that what failed can be tried again. */
export class Random {
    constructor(seed) {
        this.state = BigInt(seed) & 0xffffffffffffffffn;
    }

    /* splitmix64 */
    next() {
        this.state = (this.state + 0x9e3779b97f4a7c15n) & 0xffffffffffffffffn;
        let z = this.state;
        z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & 0xffffffffffffffffn;
        z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & 0xffffffffffffffffn;
        return z ^ (z >> 31n);
    }

    /* From 0, below n. */
    below(n) {
        return Number(this.next() % BigInt(n));
    }

    /* True in percent of all cases. */
    chance(percent) {
        return this.below(10000) < percent * 100;
    }

    pick(list) {
        return list[this.below(list.length)];
    }

    /* Some different ones, in random order. */
    some(list, count) {
        const rest = [...list];
        const out = [];
        while (out.length < count && rest.length > 0) {
            out.push(rest.splice(this.below(rest.length), 1)[0]);
        }
        return out;
    }

    fork() {
        return new Random(this.next());
    }
}

export function seedFrom(text) {
    return BigInt(text ?? process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 48));
}
