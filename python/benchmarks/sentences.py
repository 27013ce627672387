"""Real sentences, and BERT's tokens of them (WordPiece: Wu et al., arXiv:1609.08144)."""

import re
import unicodedata

SENTENCES = (
    'The harbour was quiet before sunrise, and only one boat had its lights on.',
    'A recipe that works for four people does not always work for forty.',
    'She measured the shelf twice, cut it once, and it was still too short.',
    'Heavy rain is expected in the north tonight, clearing slowly towards the coast by morning.',
    'The committee postponed its decision until the auditors had finished their report.',
    'Bees find their way back to the hive by the position of the sun.',
    'Could you send me the minutes of the last meeting before noon tomorrow?',
    'The bridge was closed for repairs after an inspection found cracks in two of its cables.',
    'He learned to play the cello at sixty, and gave his first concert at sixty-five.',
    'Water boils at a lower temperature on a mountain than at the sea.',
    'Our train leaves from platform nine, unless they have changed it again.',
    'The museum keeps its oldest maps in a room without windows.',
    'An index makes reading faster and writing slower, so choose the columns with care.',
    'The novel begins with a letter that its hero never reads.',
    'Prices of coffee rose sharply after frost had damaged the harvest.',
    'A good map leaves out most of what there is to see.',
    'The goalkeeper saved two penalties, but the match ended in a draw.',
    'Plants on the window sill grow towards the light within a few hours.',
    'The patient was told to rest for a week and to drink plenty of water.',
    'Old houses creak at night because wood shrinks when it cools.',
    'The new law obliges landlords to publish how much energy their buildings use.',
    'My grandmother wrote down every bird that she saw from the kitchen.',
    'If the tests fail on one machine only, compare the versions of the compiler first.',
    'The orchestra tunes to the oboe, because its pitch is the most stable.',
    'They sailed around the island in eleven days and slept on the beach.',
    'A whale can hold its breath for longer than an hour.',
    'The bakery at the corner sells out of rye bread by eight in the morning.',
    'Historians disagree about the year in which the tower was finished.',
    'Please close the gate, as the sheep know how to open the other one.',
    'The satellite sends its pictures down once in every orbit.',
    'Nobody in the village remembered who had planted the chestnut trees.',
    'Interest rates were left unchanged, which surprised most of the analysts.',
    'The library lends out tools, seeds and even a telescope.',
    'Snow fell in April, and the blossom of the cherry trees was lost.',
    'A short password that is changed often is weaker than a long one that is kept.',
    'The ferry takes bicycles for free outside of the summer months.',
    'He repaired watches for a living and was late for everything.',
    'Glass is made from sand, soda and lime at a very high temperature.',
    'The children built a dam across the stream and flooded the path.',
    'When the power failed, the whole street came out to look at the stars.',
)


class Tokenizer:
    """BERT's uncased tokens by a vocabulary, a word a line."""

    def __init__(self, path):
        with open(path, encoding='utf-8') as file:
            self.ids = {word.rstrip('\n'): i for i, word in enumerate(file)}

    def _pieces(self, word):
        """The longest known beginning, then the longest known rest, and so on."""
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ('##' if start else '') + word[start:end]
                if piece in self.ids:
                    break
            else:
                return [self.ids['[UNK]']]
            found.append(self.ids[piece])
            start = end
        return found

    def __call__(self, text):
        """Ids with [CLS] in front and [SEP] behind."""
        plain = ''.join(c for c in unicodedata.normalize('NFD', text.lower())
                        if unicodedata.category(c) != 'Mn')
        ids = [self.ids['[CLS]']]
        for word in re.findall(r'\w+|[^\w\s]', plain):
            ids += self._pieces(word)
        return ids + [self.ids['[SEP]']]

    def filled(self, count, length):
        """`count` rows of exactly `length` ids: sentences one after another, cut at the end."""
        rows = []
        for i in range(count):
            ids, j = [self.ids['[CLS]']], i
            while len(ids) < length - 1:
                ids += self(SENTENCES[j % len(SENTENCES)])[1:-1]
                j += 1
            rows.append(ids[:length - 1] + [self.ids['[SEP]']])
        return rows
