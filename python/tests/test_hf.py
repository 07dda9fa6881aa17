"""Activations of a model through a hook, with a small module in the place of a model of transformers."""

import types
import unittest

try:
    import torch
except ImportError:
    torch = None

import saetta


def small_model(reached):
    class Block(torch.nn.Module):
        def __init__(self, index):
            super().__init__()
            self.index = index
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x):
            reached.append(self.index)
            return (self.dropout(x) + 1, None)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = types.SimpleNamespace(bos_token_id=0, eos_token_id=[1, 2], pad_token_id=None, _name_or_path="tiny")
            self.embed = torch.nn.Embedding(16, 4)
            self.layers = torch.nn.ModuleList(Block(i) for i in range(3))
            self.head = torch.nn.Linear(4, 16)
            self.unused = torch.nn.Identity()

        def forward(self, input_ids, attention_mask=None):
            x = self.embed(input_ids)
            for layer in self.layers:
                try:
                    x = layer(x)[0]
                except Exception:
                    raise AssertionError("must not see how the pass ends")
            return self.head(x)

    return Model()


@unittest.skipIf(torch is None, "torch is not there")
class Hooks(unittest.TestCase):
    def setUp(self):
        self.reached = []
        self.model = small_model(self.reached).train()

    def rows(self, batches, layer="layers.1", **options):
        return list(saetta.from_hf(self.model, layer, batches, **options))

    def test_gives_the_layers_output_without_dropout_and_ends_the_pass_there(self):
        ids = torch.tensor([[0, 5, 6], [7, 1, 2]])
        (got,) = self.rows([ids])
        self.assertTrue(torch.equal(got["activations"], self.model.embed(ids) + 1 + 1))
        self.assertFalse(got["activations"].requires_grad)
        self.assertEqual(self.reached, [0, 1])
        self.assertEqual(got["mask"].tolist(), [[False, True, True], [True, False, False]])
        self.assertTrue(self.model.training)
        self.assertTrue(torch.is_grad_enabled())
        self.assertFalse(self.model.layers[1]._forward_hooks)
        (kept,) = self.rows([ids], exclude_special=False)
        self.assertTrue(kept["mask"].all())
        (by_tokenizer,) = self.rows([ids], tokenizer=types.SimpleNamespace(all_special_ids=[6], bos_token_id=6))
        self.assertEqual(by_tokenizer["mask"].tolist(), [[True, True, False], [True, True, True]])

    def test_masks_lists_and_shorter_batches(self):
        masked = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        got = self.rows([masked, [[5], [6, 7]]])
        self.assertEqual(got[0]["mask"].tolist(), [[True, True, False]])
        self.assertEqual(got[1]["tokens"].tolist(), [[5, 0, 0], [6, 7, 0]])
        self.assertEqual(got[1]["mask"].tolist(), [[True, False, False], [True, True, False]])
        self.assertEqual(got[1]["activations"].shape, (2, 3, 4))
        with self.assertRaisesRegex(saetta.UsageError, "batch 1 has contexts of 4 tokens, more than 3; give from_hf context=4"):
            self.rows([masked, [[5, 6, 7, 8]]])
        self.assertEqual(self.rows([masked], context=4)[0]["activations"].shape, (1, 4, 4))

    def test_says_what_it_is_for_the_header(self):
        self.assertEqual(
            saetta.from_hf(self.model, "layers.1", []).about,
            {"model": "tiny", "tensor": "layers.1", "tokenizer": None, "start_token": 0},
        )
        self.assertNotIn("start_token", saetta.from_hf(self.model, "layers.1", [], exclude_special=False).about)

    def test_refuses_modules_that_cannot_be_meant(self):
        with self.assertRaisesRegex(saetta.UsageError, "layers.7: the model has no such module; did you mean layers.2"):
            self.rows([], layer="layers.7")
        ids = torch.tensor([[5, 6]])
        with self.assertRaisesRegex(saetta.UsageError, "unused: the model's forward pass does not reach"):
            self.rows([ids], layer="unused")
        with self.assertRaisesRegex(saetta.UsageError, "a batch of tokens has no input_ids"):
            self.rows([{"ids": ids}])
        with self.assertRaisesRegex(saetta.UsageError, r"token ids must be \[contexts, context\]"):
            self.rows([ids[0]])

    def test_texts_become_contexts_that_begin_with_the_start_token(self):
        def encode(text, add_special_tokens):
            self.assertFalse(add_special_tokens)
            return [ord(letter) for letter in text]

        with_start = types.SimpleNamespace(encode=encode, bos_token_id=0)
        a, b, c, d, e = map(ord, "abcde")
        got = [batch.tolist() for batch in saetta.token_batches(["ab", "cde", "a", "b"], with_start, context=3, size=2)]
        self.assertEqual(got, [[[0, a, b], [0, c, d]], [[0, e, 0], [0, a, 0]]])
        without = types.SimpleNamespace(encode=lambda *a, **k: types.SimpleNamespace(ids=encode(*a, **k)))
        got = [batch.tolist() for batch in saetta.token_batches(["ab", "cde"], without, context=2, size=8)]
        self.assertEqual(got, [[[a, b], [c, d]]])


if __name__ == "__main__":
    unittest.main()
