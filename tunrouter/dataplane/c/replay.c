/* The replay window of one lane: each counter is accepted once (RFC 6479). As core/replay.py, which draws it.
 *
 * Law: ask only after the datagram was authenticated; otherwise a forged counter would move the window.
 */

#include "kernel.h"

_Static_assert((REPLAY_WORDS - 1) * 64 == REPLAY_WINDOW, "one word is always partly ahead of the newest counter");

bool replay_is_new(struct replay *replay, uint64_t counter) {
    uint64_t word = counter >> 6, bit = 1ull << (counter & 63);
    if (!replay->any || counter > replay->newest) {
        if (counter >= REJECT_MESSAGES)
            return false;
        /* Words that are entered are cleared: all of them, if the counter runs away by more than the ring. */
        uint64_t newest = replay->any ? replay->newest >> 6 : word - 1;
        if (!replay->any || word - newest > REPLAY_WORDS)
            newest = word - REPLAY_WORDS;
        while (newest != word)
            replay->ring[++newest % REPLAY_WORDS] = 0;
        replay->newest = counter;
        replay->any = true;
    } else if (replay->newest - counter > REPLAY_WINDOW) {
        return false;
    }
    uint64_t *seen = &replay->ring[word % REPLAY_WORDS];
    if (*seen & bit)
        return false;
    *seen |= bit;
    return true;
}
